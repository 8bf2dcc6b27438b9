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
	agents   []string // gossip addresses of some, as of the last run

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

// agentsFile holds where some agents were, to meet the others by if all
// masters have moved.
const agentsFile = "agents.json"

// firstMasters are whom to ask before there is a state: those that the operator
// or the join named, then those that were there last.
func firstMasters(c Config) []string {
	last := lastKnown(c, mastersFile)
	out := slices.Clone(c.Masters)
	for _, addr := range last {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func lastKnown(c Config, file string) (addrs []string) {
	if raw, err := os.ReadFile(c.dir(file)); err == nil {
		_ = json.Unmarshal(raw, &addrs) // a broken file names nobody
	}
	return addrs
}

// keepMasters writes down where the masters and some agents are whenever that
// changes.
func (n *Node) keepMasters(ctx context.Context) error {
	var masters, agents []string
	for ctx.Err() == nil {
		n.writeKnown(mastersFile, n.masters.list(), &masters)
		if now := n.someAgents(); len(now) > 0 { // before there is a state the former ones are better
			n.writeKnown(agentsFile, now, &agents)
		}
		pause(ctx, 5*time.Second)
	}
	return nil
}

func (n *Node) writeKnown(file string, now []string, last *[]string) {
	if slices.Equal(now, *last) {
		return
	}
	raw, err := json.Marshal(now)
	if err == nil {
		err = durable.Write(n.cfg.dir(file), raw)
	}
	if err != nil {
		n.log.Warn("where the other nodes are was not written down", "err", err)
	}
	*last = now
}
