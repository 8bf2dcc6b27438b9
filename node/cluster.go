package node

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"appliance/discovery"
	"appliance/node/agent"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/runtime"
	"appliance/node/runtime/logs"
	"appliance/raft/state"
)

// apiCluster is the node as the API sees it.
type apiCluster struct{ n *Node }

func (c apiCluster) Self() string                   { return c.n.cfg.ID }
func (c apiCluster) Leader() string                 { return c.n.leader() }
func (c apiCluster) Fresh() bool                    { return c.n.core.fresh() }
func (c apiCluster) Sync(ctx context.Context) error { return unavailable(c.n.core.Linearize(ctx)) }
func (c apiCluster) Alive(node string) bool         { return c.n.alive(node) }
func (c apiCluster) VIPHolder() string              { return c.n.vipHolder() }

func (c apiCluster) Confirm(ctx context.Context) (time.Time, bool) { return c.n.confirm(ctx) }

func (c apiCluster) Catalog(ctx context.Context) (*discovery.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	err := c.n.catalog.Fresh(ctx)
	return c.n.catalog.Current(), err
}

func (c apiCluster) NewJoinToken(role model.Role, now time.Time) (string, model.JoinToken, error) {
	tok, err := pki.NewToken(rand.Reader, role, c.n.trust.signer())
	if err != nil {
		return "", model.JoinToken{}, err
	}
	return tok.String(), tok.Record(now, time.Time{}, false), nil
}

func (c apiCluster) NewAPIToken(now time.Time) (string, model.APIToken, error) {
	secret, t := newAPIToken(now)
	return secret, t, nil
}

// pathLogs is where every node serves the output of its own tasks.
const pathLogs = "/rpc/logs"

// Logs streams a task's output from the node that has it.
func (c apiCluster) Logs(ctx context.Context, t *model.Task, stream string, follow bool, tail int, w io.Writer) error {
	if t.Node == "" {
		return model.Errorf(model.CodeConflict, "task %s has not started", t.ID).Because("it waits for a place")
	}
	if t.Node == c.n.cfg.ID {
		return c.n.copyLogs(ctx, t.ID, stream, follow, tail, w)
	}
	node := state.Nodes.Get(c.n.store.Snapshot(), t.Node)
	if node == nil {
		return model.Errorf(model.CodeNotFound, "the node of task %s is gone", t.ID)
	}
	q := url.Values{"task": {t.ID}, "stream": {stream}, "tail": {strconv.Itoa(tail)}}
	if follow {
		q.Set("follow", "1")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+withPort(node.Addr)+pathLogs+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := c.n.dialer.BulkClient().Do(req)
	if err != nil {
		return model.Errorf(model.CodeUnavailable, "node %s does not answer", node.Name).Because("%v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return model.Errorf(model.CodeNotFound, "node %s has no output of task %s", node.Name, t.ID).Because("%s", why)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

func (n *Node) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tail, _ := strconv.Atoi(q.Get("tail")) // 0: everything
	out := flushWriter{w, http.NewResponseController(w)}
	if err := n.copyLogs(r.Context(), q.Get("task"), q.Get("stream"), q.Has("follow"), tail, out); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
	}
}

type flushWriter struct {
	io.Writer
	rc *http.ResponseController
}

func (f flushWriter) Write(p []byte) (int, error) {
	k, err := f.Writer.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return k, err
}

// copyLogs reads a local task's file. The id comes from the state or is made
// harmless by LogDir; the stream is one of two words.
func (n *Node) copyLogs(ctx context.Context, task, stream string, follow bool, tail int, w io.Writer) error {
	o := runtime.LogOptions{Follow: follow, Tail: tail}
	switch stream {
	case "stdout":
		o.Stdout = w
	case "stderr":
		o.Stderr = w
	default:
		return model.Errorf(model.CodeInvalid, "a task has no stream %q", stream)
	}
	ended := make(chan struct{})
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() { defer close(ended); n.awaitEnd(watch, task) }()
	return logs.Copy(ctx, agent.LogDir(n.cfg.dir("agent"), task), o, ended)
}

// awaitEnd returns when the task is over, or ctx.
func (n *Node) awaitEnd(ctx context.Context, task string) {
	for {
		snap := n.store.Snapshot()
		if t := state.Tasks.Get(snap, task); t == nil || !t.Live() {
			return
		}
		if snap.Wait(ctx, state.Tasks.Name) != nil {
			return
		}
	}
}
