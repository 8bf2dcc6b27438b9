package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"syscall"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/state"
)

// pathPing is where every node tells its id and its clock.
const pathPing = "/rpc/ping"

// pong is the answer.
type pong struct {
	ID  string    `json:"id"`
	Now time.Time `json:"now"`
}

const (
	// probeTimeout is less than the pause between probes, so that they do not
	// pile up.
	probeTimeout = 900 * time.Millisecond
	// maxPong bounds the answer.
	maxPong = 1 << 10
)

// target is a node to probe.
type target struct{ id, addr string }

// links probes this node's links to others and tells the cluster of them.
// Nothing is decided by it: liveness is the gossip's, truth the log's.
type links struct {
	targets func() []target // the important ones first
	ping    func(ctx context.Context, t target) (pong, error)
	beat    func(ids []string)
	publish func([]gossip.Link)
	every   func() time.Duration

	mu     sync.Mutex
	tracks map[string]*gossip.Track
	row    []gossip.Link // as last published
}

// Run probes until ctx ends.
func (l *links) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		begin := time.Now()
		l.round(ctx)
		pause(ctx, max(0, l.every()-time.Since(begin)))
	}
	return nil
}

// round probes all targets at once and publishes the row.
func (l *links) round(ctx context.Context) {
	targets := l.targets()
	ids := make([]string, len(targets))
	probes := make([]gossip.Probe, len(targets))
	for i, t := range targets {
		ids[i] = t.id
	}
	l.beat(ids)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { probes[i] = l.probe(ctx, t) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	l.publish(l.note(ids, probes, time.Now()))
}

func (l *links) probe(ctx context.Context, t target) gossip.Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	p := gossip.Probe{Sent: time.Now()}
	ans, err := l.ping(ctx, t)
	rtt := time.Since(p.Sent)
	switch {
	case err != nil:
		p.State = linkState(err)
	case ans.ID != t.id:
		p.State = gossip.LinkDenied
	default:
		p.State, p.RTT, p.Peer = gossip.LinkOK, rtt, ans.Now
	}
	return p
}

// note follows the links over a round. Targets that are no longer are forgotten.
func (l *links) note(ids []string, probes []gossip.Probe, now time.Time) []gossip.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	tracks, row := map[string]*gossip.Track{}, make([]gossip.Link, 0, len(ids))
	for i, id := range ids {
		t := l.tracks[id]
		if t == nil {
			t = gossip.NewTrack(id, now)
		}
		t.Note(probes[i], now)
		tracks[id] = t
		row = append(row, t.Link())
	}
	l.tracks, l.row = tracks, row
	return row
}

// current is the row as last published.
func (l *links) current() []gossip.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.row
}

// linkState tells why a call failed.
func linkState(err error) gossip.LinkState {
	var alert tls.AlertError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return gossip.LinkRefused
	case errors.Is(err, wire.ErrRefused), errors.As(err, &alert):
		return gossip.LinkDenied
	}
	return gossip.LinkSilent
}

// openLinks makes the part; the alerts of the watchdogs travel with the row.
func (n *Node) openLinks(alerts func() []gossip.Alert) {
	n.rpc.HandleFunc("GET "+pathPing, n.servePing)
	n.links = &links{targets: n.targets, ping: n.ping, beat: n.gossip.Beat, every: n.gossip.ProbeEvery,
		publish: func(row []gossip.Link) { n.gossip.SetRow(row, alerts()) }}
	n.part("links", n.links.Run)
}

func (n *Node) servePing(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(pong{n.cfg.ID, time.Now()}) // the caller is gone if this fails
}

func (n *Node) ping(ctx context.Context, t target) (pong, error) {
	var out pong
	err := getJSON(ctx, n.dialer.Client(), "https://"+t.addr+pathPing, maxPong, &out)
	return out, err
}

// getJSON makes one reading call between nodes and reads at most limit bytes.
func getJSON(ctx context.Context, client *http.Client, url string, limit int64, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(out)
}

// targets are the nodes that this one watches.
func (n *Node) targets() []target {
	snap := n.store.Snapshot()
	var masters, others []string
	addr := map[string]string{}
	for m := range state.Nodes.All(snap) {
		if m.Status == model.NodeLeft || m.StartedAt.IsZero() {
			continue // gone, or has joined and never started
		}
		addr[m.ID] = withPort(m.Addr)
		if m.Role == model.RoleMaster {
			masters = append(masters, m.ID)
		} else {
			others = append(others, m.ID)
		}
	}
	var out []target
	for _, id := range gossip.Peers(n.cfg.ID, masters, others) {
		out = append(out, target{id, addr[id]})
	}
	return out
}
