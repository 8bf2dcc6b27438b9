package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"appliance/discovery"
	"appliance/discovery/gossip"
	"appliance/lb"
	"appliance/node/agent"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/priority"
	"appliance/node/runtime"
	"appliance/node/trim"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/registry"
	"appliance/registry/peer"

	"golang.org/x/sync/errgroup"
)

// Node is a running node: everything that its parts share. Fields are set in
// the order of open and not changed afterwards.
type Node struct {
	cfg     Config
	version string
	log     *slog.Logger
	done    <-chan struct{} // closed when the node stops

	keys       *pki.Keychain
	trust      *trustKeeper
	secrets    *secrets
	store      *state.Store
	replica    *raft.Replica
	masters    *masters
	hashes     *stateHashes
	comparer   *comparer
	dialer     *wire.Dialer
	server     *wire.Server
	rpc        *http.ServeMux // internal calls, on the wire port
	core       core
	voter      *voter     // masters only
	generation generation // of a master's log
	fence      *wire.Fence
	leadership leadership
	proposer   command.Proposer
	gossip     *gossip.Gossip
	catalog    *discovery.Watcher
	access     access
	proxy      *lb.Proxy
	receipts   *receipts
	blobs      *peer.Service
	registry   *registry.Server
	runtime    runtime.Runtime // agents only
	agent      *agent.Agent    // agents only
	volumes    *volumes
	vip        *vipRunner // ingress masters only
	api        *api.Server
	dialects   dialects
	links      *links
	watchdogs  *watchdogs
	started    time.Time
	auditCheck *auditCheck               // nil on agents
	led        atomic.Pointer[time.Time] // when a leader was last known
	stand      atomic.Pointer[vipRunner] // an agent's part in the VIP while no master is there

	parts []part // what Run runs, in the order of start
}

// part is one long-lived thing and its name for the log.
type part struct {
	name string
	run  func(ctx context.Context) error
}

func (n *Node) part(name string, run func(ctx context.Context) error) {
	n.parts = append(n.parts, part{name, run})
}

// Run runs the node until ctx ends or a part that it cannot be without fails.
func Run(ctx context.Context, cfg Config, version, level string) error {
	var lvl slog.Level
	if err := lvl.UnmarshalText([]byte(level)); err != nil {
		return model.Errorf(model.CodeInvalid, "there is no log level %q", level).Try("use debug, info, warn or error")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: lvl})).With("host", cfg.Name)
	if err := priority.Raise(); err != nil {
		log.Warn("this node runs at normal priority; a busy machine may delay its heartbeats", "err", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &Node{cfg: cfg, version: version, log: log, done: ctx.Done(), watchdogs: newWatchdogs(log), started: time.Now()}
	if err := n.open(ctx); err != nil {
		cancel()
		return err
	}
	noteStop(cfg.Run, nil, time.Now()) // that was before
	log.Info("node starts", "id", cfg.ID, "role", cfg.Role, "address", cfg.Advertise, "version", version)
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range n.parts {
		group.Go(func() error {
			err := p.run(ctx)
			if ctx.Err() != nil {
				return nil // asked to stop
			}
			if err == nil {
				err = errors.New("it ended by itself")
			}
			return fmt.Errorf("%s: %w", p.name, err)
		})
	}
	err := ended(ctx, stopGrace, group.Wait)
	log.Info("node has stopped", "err", err)
	return err
}

// open wires the node together. The order matters where a comment says so.
func (n *Node) open(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"data directory", n.openData},
		{"identity", n.openIdentity},
		{"log", n.openCore}, // before anything that reads the state
		{"generation", n.openGeneration},
		{"protocol level", n.openVersions},
		{"state hashes", n.openHashes},
		{"gossip", n.openGossip},
		{"watchdogs", n.openWatchdogs},
		{"catalog", n.openCatalog},
		{"registry", n.openRegistry},
		{"volumes", n.openVolumes},
		{"ingress", n.openIngress},
		{"agent", n.openAgent},       // after registry and volumes, which tasks need
		{"leader", n.openLeader},     // after everything that its loops call
		{"API", n.openAPI},           // last: whoever reaches it finds the rest working
		{"dialects", n.openDialects}, // the same, in other words
		{"names", n.openDNS},
		{"archives", n.openArchives},
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	// The wire port opens when all handlers are registered.
	ln, err := listen(net.JoinHostPort(n.cfg.Advertise, strconv.Itoa(wire.Port)), "other nodes")
	if err != nil {
		return err
	}
	n.server.HandleHTTP(n.fence.Handler(n.rpc))
	if n.voter != nil {
		n.server.HandleJoin(n.admission().handler())
	}
	n.part("wire", func(ctx context.Context) error { return n.server.Run(ctx, ln) })
	n.part("announce", n.announce)
	n.part("address", n.watchAddress)
	n.part("masters", n.keepMasters)
	n.part("trust", n.trust.Run)
	n.part("trim", trim.Run)
	return nil
}

// listen binds a port and explains itself if that fails.
func listen(addr, what string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, model.Errorf(model.CodeUnavailable, "cannot listen on %s for %s", addr, what).Because("%v", err).
			Try("stop what uses the port: ss -ltnp shows it")
	}
	return ln, nil
}

func (n *Node) alive(id string) bool {
	if id == n.cfg.ID {
		return true
	}
	alive, _ := n.gossip.Alive(id)
	return alive
}
