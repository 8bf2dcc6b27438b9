package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"appliance/discovery/check"
	"appliance/discovery/consul"
	"appliance/discovery/dns"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched/marathon"
	"appliance/sched/mesos"
)

// The ports of the dialects, as their clients expect them.
const (
	portConsul   = "8500"
	portDNS      = "8600"
	portMarathon = "8080"
	portMesos    = "5050"
)

// dialects are the handlers that several ports share.
type dialects struct {
	consul   http.Handler
	marathon http.Handler
	mesos    http.Handler
	own      http.Handler // API and web pages
}

func (n *Node) makeDialects(admission command.Proposer) dialects {
	runner := check.New(check.Config{Store: n.store, Proposer: n.proposer, Node: n.cfg.Name, Log: n.log})
	n.part("checks", runner.Run)
	d := dialects{
		consul: consul.New(consul.Config{Store: n.store, Catalog: n.catalog, Proposer: n.proposer, Checks: runner, ReadIndex: n.core.ReadIndex,
			Leader: n.leader, LastContact: n.lastContact, Authorize: n.access.Dialect, NodeID: n.cfg.ID, Node: n.cfg.Name, Addr: n.cfg.Advertise, Version: n.version, Log: n.log}),
		marathon: n.guarded(n.current(&marathon.Server{Store: n.store, Proposer: admission, NewID: func() string { return lower(rand.Text()[:12]) }, Log: n.log,
			DefaultEnv: func() string { return n.cluster().DefaultEnv },
			Leader:     func() string { return n.leaderHostPort(portMarathon) }})),
	}
	if n.voter != nil {
		d.mesos = n.guarded(n.makeMesos())
	}
	own := http.NewServeMux()
	handler := n.api.Handler()
	own.Handle(api.Prefix+"/", handler)
	if n.voter != nil {
		n.rpc.Handle(pathPassed+"/", n.takePassed(handler))
	}
	own.Handle("/ui/", n.api.UI())
	own.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ui/", http.StatusFound) })
	d.own = own
	return d
}

// pathMesos is where a master takes scheduler calls that other masters pass
// on to it as the leader.
const pathMesos = "/rpc/mesos"

// makeMesos serves the Mesos dialect; calls that belong to the leader go to it
// inside the cluster, so that schedulers need not know who leads.
func (n *Node) makeMesos() http.Handler {
	toLeader := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", n.leaderHostPort(strconv.Itoa(wire.Port))
			r.Out.URL.Path = pathMesos + r.In.URL.Path
			passOn(r.In.Context(), r.Out.Header)
			r.Out.Header.Del("Authorization") // checked here; the leader trusts this master's certificate
		},
		Transport: n.dialer.BulkClient().Transport, FlushInterval: -1, // event streams
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	srv := &mesos.Server{Store: n.store, Proposer: n.proposer, NewID: func() string { return lower(rand.Text()[:8]) }, Log: n.log,
		Self: n.cfg.ID, Addr: net.JoinHostPort(n.cfg.Advertise, portMesos),
		LeaderAddr: func() string { return n.leaderHostPort(portMesos) },
		ProxyToLeader: func(w http.ResponseWriter, r *http.Request) bool {
			if leader := n.core.leader(); leader == "" || leader == n.cfg.ID || strings.HasPrefix(r.RequestURI, pathMesos) {
				return false
			}
			toLeader.ServeHTTP(w, r)
			return true
		}}
	n.voter.OnLeadership(func(ctx context.Context) { _ = srv.Run(ctx) }) // ends with ctx only
	n.rpc.Handle(pathMesos+"/", mastersOnly(passedOn(http.StripPrefix(pathMesos, srv))))
	return srv
}

// mastersOnly serves calls of other masters.
func mastersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := wire.PeerFrom(r.Context()); !ok || p.Role != model.RoleMaster {
			http.Error(w, "only masters may call this", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// guarded asks for the right to write where a dialect does not ask itself.
func (n *Node) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Mesos' operator API reads by POST.
		write := r.Method != http.MethodGet && r.Method != http.MethodHead && strings.TrimPrefix(r.URL.Path, "/master") != "/api/v1"
		if err := n.access.Dialect(r, write); err != nil {
			w.Header().Set("WWW-Authenticate", `Basic realm="appliance"`)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// with serves the own pages below their paths and a dialect everywhere else.
func (d dialects) with(dialect http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case p == "/" && (dialect == nil || r.Method == http.MethodGet), strings.HasPrefix(p, "/ui/"), strings.HasPrefix(p, api.Prefix+"/"):
			d.own.ServeHTTP(w, r)
		case dialect != nil:
			dialect.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// socketHandler serves the unix socket: everything, told apart by path.
func (n *Node) socketHandler() http.Handler {
	d := n.dialects
	profiles := http.NewServeMux()
	profiles.HandleFunc("/debug/pprof/", pprof.Index)
	profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("/debug/pprof/free", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() }) // to measure what is needed
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case strings.HasPrefix(p, "/v1/"):
			d.consul.ServeHTTP(w, r)
		case strings.HasPrefix(p, "/v2/"), p == "/ping":
			d.marathon.ServeHTTP(w, r)
		case strings.HasPrefix(p, "/debug/pprof/"): // root only, as everything here
			profiles.ServeHTTP(w, r)
		default:
			d.own.ServeHTTP(w, r)
		}
	})
}

func (n *Node) openDialects(context.Context) error {
	ports := map[string]http.Handler{portConsul: n.dialects.with(n.dialects.consul)}
	if n.voter != nil {
		ports[portMarathon] = n.dialects.with(n.dialects.marathon)
		ports[portMesos] = n.dialects.with(n.dialects.mesos)
	}
	for port, h := range ports {
		ln, err := listen(":"+port, "an API")
		if err != nil {
			return err
		}
		n.part("port "+port, func(ctx context.Context) error { return serve(ctx, n.httpServer(h), ln) })
	}
	return nil
}

// cluster is the cluster's record, empty as long as it is not known.
func (n *Node) cluster() model.Cluster {
	for c := range state.Clusters.All(n.store.Snapshot()) {
		return *c
	}
	return model.Cluster{}
}

// leaderHostPort is a dialect's address on the leader, "" if there is none.
func (n *Node) leaderHostPort(port string) string {
	leader := state.Nodes.Get(n.store.Snapshot(), n.core.leader())
	if leader == nil {
		return ""
	}
	return net.JoinHostPort(leader.Addr, port)
}

// loopbackTLS lets the registry's port speak TLS too, for clients that insist.
func (n *Node) loopbackTLS() *tls.Config {
	return &tls.Config{GetCertificate: n.keys.GetCertificate, MinVersion: tls.VersionTLS12}
}

func (n *Node) openDNS(context.Context) error {
	cfg := dns.Config{Catalog: n.catalog, Hosts: n.routeAddrs, Recursors: recursors(), Log: n.log}
	cfg.Addrs = []string{net.JoinHostPort(n.cfg.Advertise, portDNS), net.JoinHostPort("127.0.0.1", portDNS)}
	srv, err := dns.New(cfg)
	if err != nil {
		return err
	}
	n.part("DNS", srv.Run)
	if !n.cfg.DNS53 {
		return nil
	}
	cfg.Addrs = []string{net.JoinHostPort(n.cfg.Advertise, "53"), "127.0.0.1:53"}
	low, err := dns.New(cfg)
	if err != nil {
		n.log.Info("DNS answers on port 8600 only", "because", err)
		n.watchdogs.down("DNS on port 53", err.Error(), "stop what uses the port (ss -lunp shows it) and restart this node, or join with --dns=false")
		return nil
	}
	n.part("DNS on 53", low.Run)
	return nil
}

// routeAddrs resolves the host names of routes to where the proxies are: the
// VIP, or this node if there is none.
func (n *Node) routeAddrs(name string) ([]netip.Addr, bool) {
	table := n.proxy.Table()
	if table == nil {
		return nil, false
	}
	if r, ok := table.Match(name, "/"); !ok || r.Host == "*" {
		return nil, false
	}
	addr := n.cfg.Advertise
	if vip := n.cluster().VIP; vip != "" {
		addr = vip
	}
	ip, err := netip.ParseAddr(addr)
	return []netip.Addr{ip}, err == nil
}

// nameservers are given to containers: this node, if it answers on port 53.
func (n *Node) nameservers() []string {
	if !n.cfg.DNS53 {
		return nil
	}
	return []string{n.cfg.Advertise}
}

// recursors are the machine's own name servers, without itself.
func recursors() []string {
	conf, err := readResolvConf("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	return conf
}

// readResolvConf returns the name servers of a resolv.conf(5) that are not on
// this machine's loopback.
func readResolvConf(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if ip := net.ParseIP(fields[1]); ip != nil && !ip.IsLoopback() {
			out = append(out, fields[1])
		}
	}
	return out, nil
}
