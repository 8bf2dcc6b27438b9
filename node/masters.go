package node

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/durable"
	"appliance/raft/state"
)

// locator knows where nodes are: as gossip hears them, and before that as they
// last said in the log. Safe for concurrent use.
type locator struct {
	store  *state.Store
	gossip atomic.Pointer[gossip.Gossip] // set when it runs: the log starts first
}

// master is the wire address of a master, "" if it is not known.
func (l *locator) master(id string) string {
	if n := state.Nodes.Get(l.store.Snapshot(), id); n != nil {
		return l.of(n)
	}
	return l.of(&model.Node{ID: id})
}

func (l *locator) of(n *model.Node) string {
	if g := l.gossip.Load(); g != nil {
		if host := g.Where(n.ID); host != "" {
			return net.JoinHostPort(host, strconv.Itoa(wire.Port))
		}
	}
	if n.Addr == "" {
		return ""
	}
	return withPort(n.Addr)
}

// masters knows where the masters are: from the locator, and before there is
// a state from the configuration.
type masters struct {
	where    *locator
	fallback []string

	mu    sync.Mutex
	index uint64          // of the state
	heard <-chan struct{} // of gossip: another one when it has news
	addrs []string
}

func (m *masters) refresh() {
	snap := m.where.store.Snapshot()
	at := state.Nodes.Index(snap)
	var heard <-chan struct{}
	if g := m.where.gossip.Load(); g != nil {
		heard = g.Changed()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at == m.index && heard == m.heard {
		return
	}
	m.index, m.heard, m.addrs = at, heard, nil
	for n := range state.Nodes.All(snap) {
		if n.Role == model.RoleMaster && n.Status != model.NodeLeft {
			m.addrs = append(m.addrs, m.where.of(n))
		}
	}
	slices.Sort(m.addrs)
}

// list gives the wire addresses of the masters.
func (m *masters) list() []string {
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.addrs) == 0 {
		return slices.Clone(m.fallback)
	}
	return slices.Clone(m.addrs)
}

// mastersFile holds where the masters were when this node last knew. A master
// that starts has no state until it reaches the others, and an agent's may be
// old.
const mastersFile = "masters.json"

// firstMasters are whom to ask before there is a state: those that the operator
// or the join named, then those that were there last.
func firstMasters(c Config) []string {
	var last []string
	if raw, err := os.ReadFile(c.dir(mastersFile)); err == nil {
		_ = json.Unmarshal(raw, &last) // a broken file names nobody
	}
	out := slices.Clone(c.Masters)
	for _, addr := range last {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// keepMasters writes down where the masters are whenever that changes.
func (n *Node) keepMasters(ctx context.Context) error {
	var last []string
	for ctx.Err() == nil {
		if now := n.masters.list(); !slices.Equal(now, last) {
			raw, err := json.Marshal(now)
			if err == nil {
				err = durable.Write(n.cfg.dir(mastersFile), raw)
			}
			if err != nil {
				n.log.Warn("where the masters are was not written down", "err", err)
			}
			last = now
		}
		pause(ctx, 5*time.Second)
	}
	return nil
}
