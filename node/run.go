package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/peer"
	"appliance/sched"

	"golang.org/x/sync/errgroup"
)

// gossipPort is next to the wire port.
const gossipPort = wire.Port + 1

// Node is a running node: everything that its parts share. Fields are set in
// the order of open and not changed afterwards.
type Node struct {
	cfg     Config
	version string
	log     *slog.Logger
	done    <-chan struct{} // closed when the node stops

	keys     *pki.Keychain
	ca       *pki.CA // masters only
	store    *state.Store
	replica  *raft.Replica
	masters  *masters
	dialer   *wire.Dialer
	server   *wire.Server
	rpc      *http.ServeMux // internal calls, on the wire port
	core     core
	voter    *voter // masters only
	proposer command.Proposer
	gossip   *gossip.Gossip
	catalog  *discovery.Watcher
	access   access
	proxy    *lb.Proxy
	receipts *receipts
	blobs    *peer.Service
	registry *registry.Server
	runtime  runtime.Runtime // agents only
	agent    *agent.Agent    // agents only
	volumes  *volumes
	vip      *vipRunner // ingress masters only
	api      *api.Server
	dialects dialects

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
	n := &Node{cfg: cfg, version: version, log: log, done: ctx.Done()}
	if err := n.open(ctx); err != nil {
		cancel()
		return err
	}
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
	err := group.Wait()
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
		{"gossip", n.openGossip},
		{"catalog", n.openCatalog},
		{"registry", n.openRegistry},
		{"volumes", n.openVolumes},
		{"ingress", n.openIngress},
		{"agent", n.openAgent},       // after registry and volumes, which tasks need
		{"leader", n.openLeader},     // after everything that its loops call
		{"API", n.openAPI},           // last: whoever reaches it finds the rest working
		{"dialects", n.openDialects}, // the same, in other words
		{"names", n.openDNS},
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
	n.server.HandleHTTP(n.rpc)
	if n.ca != nil {
		gossipKey, err := n.cfg.pki().GossipKey()
		if err != nil {
			return err
		}
		a := &admission{ca: n.ca, gossip: gossipKey, store: n.store, proposer: n.proposer, sync: n.core.Linearize, masters: n.masters.list}
		n.server.HandleJoin(a.handler())
	}
	n.part("wire", func(ctx context.Context) error { return n.server.Run(ctx, ln) })
	n.part("announce", n.announce)
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

func (n *Node) openData(ctx context.Context) error {
	if err := checkSpace(n.cfg.Data); err != nil {
		return err
	}
	lock, err := lockData(n.cfg.Data)
	if err != nil {
		return err
	}
	n.part("data directory", func(ctx context.Context) error {
		defer lock.Close()
		<-ctx.Done()
		return nil
	})
	return os.MkdirAll(n.cfg.Run, 0o700)
}

func (n *Node) openIdentity(context.Context) error {
	keys, err := n.cfg.pki().Keychain(time.Now())
	if err != nil {
		return err
	}
	n.keys = keys
	if n.cfg.Role == model.RoleMaster {
		if n.ca, err = n.cfg.pki().LoadCA(); err != nil {
			return err
		}
	}
	n.part("certificate", func(ctx context.Context) error {
		return keys.Run(ctx, n.log, n.signLeaf, n.cfg.pki().SaveNode)
	})
	return nil
}

// signLeaf renews the node's own certificate: by itself on a master, by any
// master elsewhere.
func (n *Node) signLeaf(ctx context.Context, csr []byte) ([]byte, error) {
	if n.ca != nil {
		return issue(n.ca, time.Now().UTC(), csr, n.cfg.ID, n.cfg.Name, n.cfg.Role, n.cfg.Advertise)
	}
	client := wire.JoinClient(nil, n.keys, nil)
	var last error
	for _, addr := range n.masters.list() {
		var ans renewAnswer
		if last = postJSON(ctx, client, "https://"+addr+"/renew", renewRequest{CSR: csr}, &ans); last == nil {
			return ans.Chain, nil
		}
	}
	return nil, last
}

func (n *Node) openCore(context.Context) error {
	n.store = state.New()
	n.replica = raft.NewReplica(command.NewMachine(n.store))
	n.masters = &masters{store: n.store, fallback: n.cfg.Masters}
	n.dialer = wire.NewDialer(n.keys)
	n.server = wire.NewServer(n.keys, n.log)
	n.rpc = http.NewServeMux()
	n.access = access{n.store}
	if n.cfg.Role == model.RoleMaster {
		if err := os.MkdirAll(n.cfg.dir("raft"), 0o700); err != nil {
			return err
		}
		v, err := openVoter(n.cfg, n.replica, n.server, n.dialer, n.rpc, authorize, n.done, n.log)
		if err != nil {
			return err
		}
		n.voter, n.core = v, v
	} else {
		f, err := openFollower(n.cfg, n.replica, n.dialer, n.store, n.masters.list, n.log)
		if err != nil {
			return err
		}
		n.core = f
	}
	n.part("log", n.core.Run)
	n.proposer = proposer{n.core}
	return nil
}

func (n *Node) openGossip(context.Context) error {
	key, err := n.cfg.pki().GossipKey()
	if err != nil {
		return err
	}
	n.gossip, err = gossip.New(gossip.Config{ID: n.cfg.ID, Name: n.cfg.Name, Role: string(n.cfg.Role), Version: n.version,
		Cluster: n.keys.Identity().Cluster, Key: key, Bind: n.cfg.Advertise, Port: gossipPort, Advertise: n.cfg.Advertise,
		Seeds: n.gossipSeeds, Log: n.log})
	if err != nil {
		return err
	}
	n.part("gossip", n.gossip.Run)
	return nil
}

func (n *Node) gossipSeeds() []string {
	var out []string
	for _, addr := range n.masters.list() {
		host, _, err := net.SplitHostPort(addr)
		if err == nil && host != n.cfg.Advertise {
			out = append(out, net.JoinHostPort(host, strconv.Itoa(gossipPort)))
		}
	}
	return out
}

func (n *Node) openCatalog(context.Context) error {
	n.catalog = discovery.NewWatcher(n.store, n.gossip)
	n.part("catalog", n.catalog.Run)
	return nil
}

// registryAddr is the loopback endpoint of every node.
const registryAddr = "127.0.0.1:5000"

func (n *Node) openRegistry(context.Context) error {
	store, err := blob.New(n.cfg.dir("blobs"), blob.Options{Log: n.log})
	if err != nil {
		return err
	}
	index := imageIndex{n.store, n.proposer}
	c := peer.Config{Store: store, Masters: n.blobMasters, Client: n.dialer.BulkClient(), Log: n.log}
	if n.cfg.Role == model.RoleMaster {
		c.Wanted = index.wanted
	}
	n.blobs = peer.New(c)
	n.registry = registry.New(registry.Config{Blobs: n.blobs, Uploads: store, Index: index, Authorize: n.access.Registry, Log: n.log})
	n.rpc.Handle("/rpc/blob/", n.blobs.Handler())
	ln, err := listen(registryAddr, "the registry")
	if err != nil {
		return err
	}
	n.part("blobs", n.blobs.Run)
	collector := &imageGC{index: index, blobs: store, fresh: n.core.fresh, leads: func() bool { return n.core.leader() == n.cfg.ID }, log: n.log}
	n.part("image collection", collector.Run)
	n.part("uploads", n.registry.Run)
	n.part("registry", func(ctx context.Context) error {
		return registry.Serve(ctx, ln, n.loopbackTLS(), n.registry, n.log)
	})
	return nil
}

func (n *Node) blobMasters() []peer.Master {
	var out []peer.Master
	for _, addr := range n.masters.list() {
		out = append(out, peer.Master{URL: "https://" + addr, Self: addr == n.cfg.wireAddr()})
	}
	return out
}

func (n *Node) openIngress(context.Context) error {
	n.proxy = lb.New(lb.Config{Log: n.log})
	n.rpc.HandleFunc("GET "+pathCounts, serveCounts(n.proxy))
	n.receipts = &receipts{store: n.store, client: n.dialer.Client(), self: n.cfg.ID, local: n.proxy, alive: n.alive, log: n.log}
	n.part("proxy", n.proxy.Run)
	n.part("routes", (&ingress{store: n.store, catalog: n.catalog, proxy: n.proxy, log: n.log}).Run)
	if !n.cfg.Ingress {
		return nil
	}
	if err := n.openVIP(); err != nil { // before the port: see vip.Instance.Clear
		return err
	}
	ln, err := listen(":80", "incoming traffic (or start this node with --ingress=false)")
	if err != nil {
		return err
	}
	srv := &lb.Server{Handler: n.proxy, HTTP: ln, Log: n.log}
	n.part("ingress", srv.Run)
	return nil
}

func (n *Node) alive(id string) bool {
	if id == n.cfg.ID {
		return true
	}
	alive, _ := n.gossip.Alive(id)
	return alive
}

func (n *Node) openAgent(ctx context.Context) error {
	n.rpc.HandleFunc("GET "+pathLogs, n.serveLogs)
	if n.cfg.Role != model.RoleAgent {
		return nil
	}
	rt, why, err := openRuntime(ctx, n.cfg, n.log)
	if err != nil {
		return err
	}
	n.runtime = rt
	n.log.Info("container runtime", "name", rt.Name(), "because", why)
	n.agent, err = agent.Open(agent.Config{
		Node: n.cfg.ID, Name: n.cfg.Name, Addr: n.cfg.Advertise, Dir: n.cfg.dir("agent"),
		Store: n.store, Proposer: n.proposer, Runtime: rt, Volumes: n.volumes, Fresh: n.core.fresh,
		Registry: registryAddr, Nameservers: n.nameservers(), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.part("agent", func(ctx context.Context) error {
		defer rt.Close()
		defer n.agent.Close()
		return n.agent.Run(ctx)
	})
	return nil
}

func (n *Node) openAPI(context.Context) error {
	admission := &api.Admission{Next: n.proposer, Store: n.store, Registry: registryAddr, Admit: sched.Admit}
	n.api = &api.Server{Store: n.store, Proposer: admission, Cluster: apiCluster{n},
		Images: imageLabels{imageIndex{n.store, n.proposer}, n.blobs}, Authorize: n.access.API, Version: n.version, Log: n.log}
	sock := filepath.Join(n.cfg.Run, "api.sock")
	if err := os.Remove(sock); err != nil && !os.IsNotExist(err) {
		return err
	}
	ln, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	if err := os.Chmod(sock, 0o600); err != nil {
		return err
	}
	n.dialects = n.makeDialects(admission)
	socket := n.socketHandler()
	n.part("API socket", func(ctx context.Context) error {
		srv := n.httpServer(socket)
		srv.ConnContext = asRoot
		return serve(ctx, srv, ln)
	})
	return nil
}

// announce tells the cluster of this node at every start, and goes on trying
// until it is heard.
func (n *Node) announce(ctx context.Context) error {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := command.Do(try, n.proposer, &command.UpdateNode{Node: n.self(try), At: time.Now().UTC()})
		cancel()
		var e *model.Error
		switch {
		case err == nil:
			<-ctx.Done()
			return nil
		case errors.As(err, &e) && e.Code == model.CodeNotFound && n.core.fresh() && !n.founding():
			return model.Errorf(model.CodeDenied, "this machine is not of the cluster any more").Because("%v", err).
				Try("to join again: appliance leave --accept-risk=lose-local-data, then appliance join")
		}
		pause(ctx, 500*time.Millisecond)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// self is this node as the cluster should know it.
func (n *Node) self(ctx context.Context) model.Node {
	out := model.Node{ID: n.cfg.ID, Name: n.cfg.Name, Role: n.cfg.Role, Addr: n.cfg.Advertise, Attributes: n.cfg.Attributes,
		Version: n.version, Ingress: n.cfg.Ingress, StartedAt: time.Now().UTC()}
	if n.runtime != nil {
		out.Capacity = capacity(n.cfg)
		out.PortRange = [2]int{31000, 32000} // as Mesos agents offer
		out.Runtime = n.runtime.Name()
		if info, err := n.runtime.Info(ctx); err == nil {
			out.Runtime += " " + strings.TrimSuffix(info.Version, "+unknown") // as a library it knows no commit
		}
	}
	return out
}
