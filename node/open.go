package node

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"appliance/discovery"
	"appliance/discovery/gossip"
	"appliance/lb"
	"appliance/node/agent"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/registry"
	"appliance/registry/blob"
	"appliance/registry/peer"
	"appliance/sched"
)

// gossipPort is next to the wire port.
const gossipPort = wire.Port + 1

func (n *Node) openData(ctx context.Context) error {
	if err := startSpace(n.cfg.Data); err != nil {
		return err
	}
	lock, err := lockData(n.cfg.Data)
	if err != nil {
		return err
	}
	if err := checkLevel(n.cfg); err != nil {
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
	n.part("certificate", func(ctx context.Context) error {
		return keys.Run(ctx, n.log, n.signLeaf, n.cfg.pki().SaveNode)
	})
	return nil
}

func (n *Node) openCore(ctx context.Context) error {
	n.store = state.New()
	machine := command.NewMachine(n.store)
	n.hashes = newStateHashes(n.log)
	machine.OnCheckpoint(n.hashes.checkpoint)
	n.replica = raft.NewReplica(machine)
	n.masters = &masters{where: &locator{store: n.store}, fallback: firstMasters(n.cfg), agents: lastKnown(n.cfg, agentsFile)}
	n.dialer = wire.NewDialer(n.keys)
	n.server = wire.NewServer(n.keys, n.log)
	n.rpc = http.NewServeMux()
	n.access = access{n.store}
	if err := n.openFence(); err != nil {
		return err
	}
	if err := n.carryOutOrder(ctx); err != nil { // before the log is opened
		return err
	}
	if n.cfg.Role == model.RoleMaster {
		if err := os.MkdirAll(n.cfg.dir("raft"), 0o700); err != nil {
			return err
		}
		v, err := openVoter(n.cfg, n.generation.Number, n.replica, n.server, n.dialer, n.rpc, authorize, n.masters.where.master, n.done, n.log)
		if err != nil {
			return err
		}
		n.voter, n.core = v, v
		n.leadership.voter = v
	} else {
		f, err := openFollower(n.cfg, n.replica, n.dialer, n.store, n.masters.list, n.log)
		if err != nil {
			return err
		}
		n.core = f
		if at := f.feed.Status().Loaded; !at.IsZero() {
			n.led.Store(&at)
		}
	}
	n.part("log", n.core.Run)
	n.proposer = auditor{levelGate{compact{proposer{n.core}, n.store}, n.store}, n.cfg.ID}
	return n.openTrust()
}

func (n *Node) openGossip(context.Context) error {
	var err error
	n.gossip, err = gossip.New(gossip.Config{ID: n.cfg.ID, Name: n.cfg.Name, Role: string(n.cfg.Role), Version: n.version,
		Cluster: n.keys.Identity().Cluster, Key: n.trust.gossipKeys()[0], Bind: n.cfg.Advertise, Port: gossipPort, Advertise: n.cfg.Advertise,
		Seeds: n.gossipSeeds, Log: n.log})
	if err != nil {
		return err
	}
	if err := n.gossip.SetKeys(n.trust.gossipKeys()); err != nil {
		return err
	}
	n.masters.where.gossip.Store(n.gossip)
	n.part("gossip", n.gossip.Run)
	return nil
}

func (n *Node) gossipSeeds() []string {
	var out []string
	// The first ones too: after all masters have moved, an operator names them.
	for _, addr := range append(n.masters.list(), n.masters.fallback...) {
		host, _, err := net.SplitHostPort(addr)
		seed := net.JoinHostPort(host, strconv.Itoa(gossipPort))
		if err == nil && host != n.cfg.Advertise && !slices.Contains(out, seed) {
			out = append(out, seed)
		}
	}
	return append(out, n.otherSeeds()...)
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
		return registry.Serve(ctx, ln, n.loopbackTLS(), n.onBehalf(n.registry), n.log)
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
	if n.voter == nil && n.cfg.VIP == "" {
		n.part("VIP understudy", n.understudy)
	}
	if err := n.openVIP(); err != nil { // before the port: see vip.Instance.Clear
		return err
	}
	ln, err := listen(":80", "incoming traffic (or start this node with --ingress=false)")
	if err != nil {
		return err
	}
	f := &front{n: n}
	f.server = &lb.Server{Handler: f, HTTP: ln, Log: n.log}
	n.part("ingress", f.Run)
	return nil
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
		Store: n.store, Proposer: n.proposer, Runtime: rt, Volumes: n.volumes, Fresh: n.inTouch, Sync: n.core.Linearize,
		Secrets: n.secrets.fetch, SecretDir: filepath.Join(n.cfg.Run, "secrets"),
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
		Secrets: n.secrets, Images: imageLabels{imageIndex{n.store, n.proposer}, n.blobs}, Authorize: n.access.API, Version: n.version, Upgrade: upgrade{n}, Term: n.term, Log: n.log}
	if n.voter == nil {
		n.api.Pass = n.newPasser().pass
	}
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
