package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/durable"
	"appliance/raft/state"
)

// pathVersion is where every node says what its binary is.
const pathVersion = "/rpc/version"

const (
	// levelSoak is how long all nodes must speak a level before the leader raises the cluster to it: until
	// then the way back to the older binary is open.
	levelSoak = 10 * time.Minute
	// levelEvery is how often the leader asks while some level is to be gained.
	levelEvery = 10 * time.Second
	// versionTimeout bounds the question to one node.
	versionTimeout = 2 * time.Second
	// holdLease keeps the level as it is. It is a lease, because binaries of level 1 know leases, and it has
	// an end, because a forgotten hold would stop every later upgrade from taking effect.
	holdLease  = "upgrade-hold"
	holdHolder = "operator"
)

// binary is what a node says of its program.
type binary struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Speaks  int    `json:"speaks"` // protocol level
}

// openVersions mounts the answer, and has the leader raise the level.
func (n *Node) openVersions(context.Context) error {
	n.rpc.HandleFunc("GET "+pathVersion, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(binary{n.cfg.ID, n.version, command.Speaks}) // the caller asks again
	})
	n.part("protocol level", n.noteLevel)
	if n.voter != nil {
		n.voter.OnLeadership(n.keepLevel)
	}
	return nil
}

// levelGate is a Proposer that keeps out of the log what some node does not understand yet.
type levelGate struct {
	next  command.Proposer
	store *state.Store
}

// Propose implements command.Proposer.
func (g levelGate) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	if want := command.Level(c); want > 1 {
		snap := g.store.Snapshot()
		if have := command.ClusterLevel(snap); want > have {
			return command.Result{}, notYet(snap, want, have)
		}
	}
	return g.next.Propose(ctx, c)
}

// notYet says who keeps the cluster from the level that a change needs.
func notYet(snap *state.Snapshot, want, have int) error {
	var older []string
	for n := range state.Nodes.All(snap) {
		if n.Status != model.NodeLeft && n.Speaks() < want {
			older = append(older, fmt.Sprintf("%s (%s)", n.Name, cmp.Or(n.Version, "version unknown")))
		}
	}
	e := model.Errorf(model.CodeConflict, "the cluster does not take this change yet")
	if len(older) > 0 {
		return e.Because("it needs protocol level %d and the cluster has %d, because of older binaries on: %s", want, have, strings.Join(older, ", ")).
			Try("install the newer version there, then: appliance upgrade finish")
	}
	return e.Because("it needs protocol level %d and the cluster has %d, so that the last upgrade can still be undone", want, have).
		Try("to make the upgrade final: appliance upgrade finish; to see the nodes: appliance upgrade")
}

// levelFile notes the cluster's level beside the log, so that an older binary finds out before it reads
// anything.
const levelFile = "protocol-level"

// checkLevel refuses a data directory of a cluster whose level this binary does not speak.
func checkLevel(c Config) error {
	path, second, aside := c.twice(levelFile)
	raw, err := durable.ReadTwice(path, second, aside, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	level, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return model.Errorf(model.CodeInvalid, "the file %s is damaged", c.dir(levelFile)).Because("%v", err).
			Try("remove it: the log itself says the same, later")
	}
	if level > command.Speaks {
		return model.Errorf(model.CodeConflict, "this version is too old for the cluster").
			Because("the cluster has protocol level %d, this binary speaks %d and would drop what it does not know", level, command.Speaks).
			Try("install the version that the other nodes run; nothing was changed")
	}
	return nil
}

// noteLevel writes the level down whenever it is raised.
func (n *Node) noteLevel(ctx context.Context) error {
	noted := 0
	for ctx.Err() == nil {
		snap := n.store.Snapshot()
		if level := command.ClusterLevel(snap); level > max(1, noted) {
			path, second, _ := n.cfg.twice(levelFile)
			if err := durable.WriteTwice(path, second, fmt.Appendln(nil, level)); err != nil {
				n.log.Warn("the protocol level cannot be noted, trying again", "err", err)
				pause(ctx, levelEvery)
				continue
			}
			noted = level
		}
		if err := snap.Wait(ctx, state.Clusters.Name); err != nil {
			return nil
		}
	}
	return nil
}

// versions asks every node what it runs. Nodes that are known to be down count as what they said last.
func (n *Node) versions(ctx context.Context) []api.NodeVersion {
	var out []api.NodeVersion
	for node := range state.Nodes.All(n.store.Snapshot()) {
		out = append(out, api.NodeVersion{ID: node.ID, Name: node.Name, Role: string(node.Role), Addr: node.Addr, Status: string(node.Status),
			Version: node.Version, Speaks: node.Speaks()})
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16) // questions at a time: a cluster may have hundreds of nodes
	for i := range out {
		if out[i].Status == string(model.NodeLeft) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			v := &out[i]
			b, err := n.askVersion(ctx, v.ID, v.Addr)
			if err == nil {
				v.Answers, v.Version, v.Speaks = true, cmp.Or(b.Version, v.Version), max(1, b.Speaks)
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b api.NodeVersion) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (n *Node) askVersion(ctx context.Context, id, addr string) (binary, error) {
	var b binary
	if id == n.cfg.ID {
		return binary{id, n.version, command.Speaks}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+withPort(addr)+pathVersion, nil)
	if err != nil {
		return b, err
	}
	resp, err := n.dialer.Client().Do(req)
	if err != nil {
		return b, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&b)
	case http.StatusNotFound: // a binary of level 1 has no such path
	default:
		err = fmt.Errorf("it answered %s", resp.Status)
	}
	if err == nil && b.ID != "" && b.ID != id {
		err = fmt.Errorf("another node (%s) answers at %s", b.ID, addr)
	}
	return b, err
}
