// Package gossip tells which nodes answer, seconds before the log does. It is
// the one adapter of hashicorp/memberlist: encrypted, one label per cluster,
// tuned so that every node knows of a death in about two seconds.
//
// A member's identity is its node id, not its name: a rebuilt machine of the
// same name is another member, and two processes with one id are a copied data
// directory, which Conflict reports.
package gossip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Timing. One failed probe (500 ms) and a suspicion of 3 probe intervals that
// another node confirms make about two seconds from death to verdict.
// Lifeguard (awareness) stays on, so a slow node suspects itself first.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 200 * time.Millisecond
	suspicionMult = 3
	// resendMult times the logarithm of the size is how often a member passes news on, to three others at a time.
	// With memberlist's 4 one of seven misses a piece of news once in 40 times; who misses a death has to find
	// it out alone, and nobody confirms it: that takes 10 s and more instead of two.
	resendMult = 8
	// reclaimTime lets a restarted node come back with another address this
	// soon after its old self was declared dead. The id protects the name.
	reclaimTime = time.Second
	// rejoinEvery is how often a node that misses members asks its seeds
	// again. It heals partitions longer than memberlist remembers the dead.
	rejoinEvery = 5 * time.Second
	// settleTime is how long after the start all seeds are asked again, every
	// settleEvery: a node that came back with another address is refused until
	// its old self is declared dead.
	settleTime  = 15 * time.Second
	settleEvery = time.Second
	// pushPull is how often two members compare everything they know.
	pushPull   = 10 * time.Second
	streamTime = 5 * time.Second
	// keepDead bounds the memory for nodes that never came back.
	keepDead = 24 * time.Hour
)

// Config is how a node takes part.
type Config struct {
	ID      string // node id
	Name    string
	Role    string
	Version string

	Cluster   string // label: packets of other clusters are dropped
	Key       []byte // 16, 24 or 32 bytes; SetKeys changes it later
	Bind      string // IP address to listen on
	Port      int    // TCP and UDP; 0 lets the kernel choose
	Advertise string // IP address told to others; empty: Bind

	// Seeds gives addresses ("ip:port") to ask when members are missing. It is
	// called from Run; may be nil.
	Seeds func() []string
	Log   *slog.Logger

	// Transport replaces the sockets; nil except in simulations.
	Transport Transport
}

// Member is a node that gossip has met.
type Member struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Version string    `json:"version"`
	Addr    string    `json:"addr"`
	Port    int       `json:"port"`
	Alive   bool      `json:"alive"`
	Since   time.Time `json:"since"` // of Alive; of one that is dead: since when its beats are missed, see silentSince
}

// meta travels with every member; memberlist allows 512 bytes.
type meta struct {
	Name    string `json:"n"`
	Role    string `json:"r"`
	Version string `json:"v"`
}

// Gossip is this node's part in the cluster. Safe for concurrent use.
type Gossip struct {
	cfg  Config
	list *memberlist.Memberlist

	keying  sync.Mutex // one SetKeys at a time
	keyring *memberlist.Keyring

	mu       sync.Mutex
	members  map[string]Member
	changed  chan struct{}
	conflict conflict
	reach    *reach

	closing sync.Mutex // memberlist panics when told to leave after it was closed
	closed  bool
}

// New binds the port and begins to answer probes. It knows nobody until Join.
// The caller runs Run, or else calls Shutdown.
func New(cfg Config) (*Gossip, error) {
	if cfg.ID == "" || cfg.Cluster == "" || len(cfg.Key) == 0 {
		return nil, errors.New("gossip: a node id, a cluster name and a key are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{cfg: cfg, members: map[string]Member{}, changed: make(chan struct{})}
	g.reach = newReach(cfg.ID, g.size)
	raw, err := json.Marshal(meta{Name: cfg.Name, Role: cfg.Role, Version: cfg.Version})
	if err != nil || len(raw) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: name, role and version need %d bytes, %d are allowed: choose a shorter node name", len(raw), memberlist.MetaMaxSize)
	}
	if g.keyring, err = memberlist.NewKeyring(nil, cfg.Key); err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	list, err := memberlist.Create(g.memberlistConfig(raw))
	if err != nil {
		return nil, fmt.Errorf("gossip cannot start on %s: %w", net.JoinHostPort(cfg.Bind, strconv.Itoa(cfg.Port)), err)
	}
	g.list = list
	return g, nil
}

func (g *Gossip) memberlistConfig(raw []byte) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.ID
	c.Label = g.cfg.Cluster
	c.Keyring = g.keyring
	c.BindAddr, c.BindPort = g.cfg.Bind, g.cfg.Port
	c.AdvertiseAddr, c.AdvertisePort = g.cfg.Advertise, g.cfg.Port
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = probeInterval, probeTimeout, suspicionMult
	c.RetransmitMult = resendMult
	c.DeadNodeReclaimTime = reclaimTime
	c.PushPullInterval = pushPull
	c.TCPTimeout = streamTime
	c.Delegate, c.Events, c.Conflict = delegate{raw, g.reach}, events{g}, events{g}
	c.Logger = log.New(logWriter{g.cfg.Log}, "", 0)
	if g.cfg.Transport != nil {
		c.Transport = g.cfg.Transport
	}
	return c
}

// Addr is the address that others reach this node at, "ip:port".
func (g *Gossip) Addr() string { return g.list.LocalNode().Address() }

// Join exchanges members with the seeds ("ip:port") and tells how many
// answered. It is an error only if none did.
func (g *Gossip) Join(seeds []string) (int, error) {
	seeds = slices.DeleteFunc(slices.Clone(seeds), func(s string) bool { return s == g.Addr() })
	if len(seeds) == 0 {
		return 0, nil
	}
	n, err := g.list.Join(seeds)
	if n > 0 {
		return n, nil
	}
	if err != nil {
		return 0, fmt.Errorf("gossip reaches none of %s: %w", strings.Join(seeds, ", "), err)
	}
	return 0, nil
}

// Run asks the seeds again while members are missing, until ctx ends, then
// closes the port without a goodbye: a node that only restarts stays a member.
func (g *Gossip) Run(ctx context.Context) error {
	defer g.Shutdown()
	begin, every := time.Now(), settleEvery
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-time.After(every):
			settling := now.Sub(begin) < settleTime
			if !settling {
				every = rejoinEvery
			}
			g.rejoin(settling)
			g.forget(now)
			g.reportConflict(now)
		}
	}
}

// rejoin asks all seeds, or those that are not among the living.
func (g *Gossip) rejoin(all bool) {
	if g.cfg.Seeds == nil {
		return
	}
	known := map[string]bool{g.Addr(): true}
	if !all {
		for _, m := range g.Members() { // memberlist changes the nodes that it hands out
			if m.Alive {
				known[net.JoinHostPort(m.Addr, strconv.Itoa(m.Port))] = true
			}
		}
	}
	missing := slices.DeleteFunc(slices.Clone(g.cfg.Seeds()), func(s string) bool { return known[s] })
	if len(missing) == 0 {
		return
	}
	if _, err := g.list.Join(missing); err != nil {
		g.cfg.Log.Debug("gossip seeds do not answer", "seeds", missing, "err", err)
	}
}

// Leave says goodbye, so that others do not wait for the verdict, and closes
// the port. After Shutdown it does nothing.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	return errors.Join(g.list.Leave(timeout), g.list.Shutdown())
}

// Shutdown closes the port without a goodbye. It may be called again.
func (g *Gossip) Shutdown() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	return g.list.Shutdown()
}

// Alive tells whether the node answers and since when that is so, as
// Member.Since says it. A node that was never met counts as alive.
func (g *Gossip) Alive(id string) (bool, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, met := g.members[id]
	return !met || m.Alive, m.Since
}

// Met tells whether a node was ever seen here. One that never was says
// nothing about itself.
func (g *Gossip) Met(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.members[id]
	return ok
}

// Members lists all nodes that were met, by name and id.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Answering lists the ids of the nodes that answer, this one included.
func (g *Gossip) Answering() (ids []string) {
	for _, m := range g.Members() {
		if m.Alive {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Changed returns a channel that is closed at the next change of Members;
// changes in between come as one.
func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// size is the number of nodes that were met.
func (g *Gossip) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members)
}

func (g *Gossip) put(n *memberlist.Node, alive bool) {
	var about meta
	json.Unmarshal(n.Meta, &about) // a member without readable meta still counts
	m := Member{
		ID: n.Name, Name: about.Name, Role: about.Role, Version: about.Version, Addr: n.Addr.String(), Port: int(n.Port),
		Alive: alive, Since: time.Now(),
	}
	if !alive {
		m.Since = g.reach.silentSince(m.ID, m.Since)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, met := g.members[m.ID]
	if met && old.Alive == alive {
		m.Since = old.Since
	}
	g.members[m.ID] = m
	if !alive && g.conflict.id == m.ID {
		g.conflict = conflict{} // it was the old self of a node that has moved; two that live keep each other alive
	}
	close(g.changed)
	g.changed = make(chan struct{})
	if !met || old.Alive != alive {
		g.cfg.Log.Info("gossip", "node", m.Name, "id", m.ID, "addr", m.Addr, "alive", alive)
	}
}

func (g *Gossip) forget(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, m := range g.members {
		if !m.Alive && now.Sub(m.Since) > keepDead {
			delete(g.members, id)
		}
	}
}
