package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/discoverytest"
	"appliance/discovery/dns"
	"appliance/node/model"
	"appliance/raft/command"

	mdns "github.com/miekg/dns"
)

var unhealthy = false

// cluster has app notejam on two nodes, an unhealthy third instance, a
// database outside and a service with a name for an address.
func cluster() *discoverytest.Cluster {
	c := discoverytest.New()
	c.Node("mm1", "10.0.0.1", model.RoleMaster)
	c.Node("ms1", "10.0.0.11", model.RoleAgent)
	c.Node("MS2", "10.0.0.12", model.RoleAgent)
	c.Deploy(model.AppSpec{ID: "/test/notejam", Ports: []model.Port{{ContainerPort: 80}}, Env: map[string]string{"SERVICE_TAGS": "v1,blue.green"}})
	c.Run("t1", "/test/notejam", "ms1", 31001)
	c.Run("t2", "/test/notejam", "MS2", 31002)
	c.Task("t3", "/test/notejam", "MS2", 31003)
	c.Observe("t3", model.TaskRunning, &unhealthy)
	c.Must(
		&command.RegisterService{Service: &model.ExternalService{Node: "db", NodeAddr: "10.9.9.1", ID: "pg", Name: "pg", Address: "10.9.9.2", Port: 5432, Weights: [2]int{7, 3}},
			Checks: []model.ExternalCheck{{Node: "db", ID: "c", Service: "pg", Status: "warning"}}},
		&command.RegisterService{Service: &model.ExternalService{Node: "db", NodeAddr: "10.9.9.1", ID: "v6", Name: "v6", Address: "fd00::1", Port: 1}},
		&command.RegisterService{Service: &model.ExternalService{Node: "db", NodeAddr: "10.9.9.1", ID: "far", Name: "far", Address: "far.example.com", Port: 1}},
	)
	return c
}

type fixed struct{ table *discovery.Table }

func (f fixed) Current() *discovery.Table { return f.table }

func config(c *discoverytest.Cluster) dns.Config {
	return dns.Config{
		Catalog: fixed{discovery.Catalog(c.Store.Snapshot(), discovery.AllAlive{})},
		Now:     func() time.Time { return time.Unix(1700000000, 0) },
		Hosts: func(name string) ([]netip.Addr, bool) {
			return []netip.Addr{netip.MustParseAddr("192.168.56.100")}, name == "app-test" || name == "app-test.example.org"
		},
	}
}

func server(t testing.TB, cfg dns.Config) *dns.Server {
	s, err := dns.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func question(name string, qtype uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(mdns.Fqdn(name), qtype)
}

// brief prints records without header noise, sorted.
func brief(rrs []mdns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		if _, opt := rr.(*mdns.OPT); !opt {
			f := strings.Fields(rr.String())
			out = append(out, strings.Join(f[3:], " "))
		}
	}
	slices.Sort(out)
	return out
}

func TestAnswers(t *testing.T) {
	s := server(t, config(cluster()))
	const ok, nx = mdns.RcodeSuccess, mdns.RcodeNameError
	soa := []string{"SOA ns.consul. hostmaster.consul. 1700000000 3600 600 86400 1"}
	both := []string{"A 10.0.0.11", "A 10.0.0.12"}
	srv := []string{"SRV 1 1 31001 ms1.node.dc1.consul.", "SRV 1 1 31002 ms2.node.dc1.consul."}
	srvExtra := []string{"A 10.0.0.11", "A 10.0.0.12", `TXT "env=test"`, `TXT "env=test"`}
	tests := []struct {
		name   string
		qname  string
		qtype  uint16
		rcode  int
		answer []string
		ns     []string
		extra  []string
	}{
		{"service A", "notejam-test.service.consul", mdns.TypeA, ok, both, nil, nil},
		{"datacenter", "notejam-test.service.dc1.consul", mdns.TypeA, ok, both, nil, nil},
		{"case", "NoteJam-Test.Service.Consul", mdns.TypeA, ok, both, nil, nil},
		{"unknown datacenter", "notejam-test.service.dc9.consul", mdns.TypeA, nx, nil, soa, nil},
		{"tag", "v1.notejam-test.service.consul", mdns.TypeA, ok, both, nil, nil},
		{"tag with a dot", "blue.green.notejam-test.service.consul", mdns.TypeA, ok, both, nil, nil},
		{"unknown tag", "v9.notejam-test.service.consul", mdns.TypeA, nx, nil, soa, nil},
		{"SRV", "notejam-test.service.consul", mdns.TypeSRV, ok, srv, nil, srvExtra},
		{"RFC 2782", "_notejam-test._tcp.service.consul", mdns.TypeSRV, ok, srv, nil, srvExtra},
		{"RFC 2782 tag", "_notejam-test._v1.service.consul", mdns.TypeSRV, ok, srv, nil, srvExtra},
		{"RFC 2782 udp is a tag", "_notejam-test._udp.service.consul", mdns.TypeSRV, nx, nil, soa, nil},
		{"RFC 2782 short", "_notejam-test._tcp.consul", mdns.TypeSRV, ok, srv, nil, srvExtra},
		{"RFC 2782 short with datacenter", "_notejam-test._tcp.dc1.consul", mdns.TypeSRV, ok, srv, nil, srvExtra},
		{"query", "notejam-test.query.consul", mdns.TypeA, ok, both, nil, nil},
		{"wrong type", "notejam-test.service.consul", mdns.TypeMX, ok, nil, soa, nil},
		{"no AAAA", "notejam-test.service.consul", mdns.TypeAAAA, ok, nil, soa, nil},
		{"SRV with own address", "pg.service.consul", mdns.TypeSRV, ok, []string{"SRV 1 3 5432 0a090902.addr.dc1.consul."}, nil, []string{"A 10.9.9.2"}},
		{"AAAA", "v6.service.consul", mdns.TypeAAAA, ok, []string{"AAAA fd00::1"}, nil, nil},
		{"SRV IPv6", "v6.service.consul", mdns.TypeSRV, ok, []string{"SRV 1 1 1 fd000000000000000000000000000001.addr.dc1.consul."}, nil, []string{"AAAA fd00::1"}},
		{"CNAME", "far.service.consul", mdns.TypeA, ok, []string{"CNAME far.example.com."}, nil, nil},
		{"SRV name", "far.service.consul", mdns.TypeSRV, ok, []string{"SRV 1 1 1 far.example.com."}, nil, nil},
		{"ANY", "v6.service.consul", mdns.TypeANY, ok, []string{"AAAA fd00::1", "SRV 1 1 1 fd000000000000000000000000000001.addr.dc1.consul."}, nil, []string{"AAAA fd00::1"}},
		{"masters", "consul.service.consul", mdns.TypeA, ok, []string{"A 10.0.0.1"}, nil, nil},
		{"unknown service", "none.service.consul", mdns.TypeA, nx, nil, soa, nil},
		{"node", "ms1.node.consul", mdns.TypeA, ok, []string{"A 10.0.0.11"}, nil, nil},
		{"node case", "ms2.node.dc1.consul", mdns.TypeA, ok, []string{"A 10.0.0.12"}, nil, nil},
		{"node TXT", "ms1.node.consul", mdns.TypeTXT, ok, []string{`TXT "env=test"`}, nil, nil},
		{"unknown node", "ms9.node.consul", mdns.TypeA, nx, nil, soa, nil},
		{"addr", "0a000001.addr.dc1.consul", mdns.TypeA, ok, []string{"A 10.0.0.1"}, nil, nil},
		{"addr IPv6", "fd000000000000000000000000000001.addr.consul", mdns.TypeAAAA, ok, []string{"AAAA fd00::1"}, nil, nil},
		{"bad addr", "0a00.addr.consul", mdns.TypeA, nx, nil, soa, nil},
		{"apex SOA", "consul", mdns.TypeSOA, ok, soa, []string{"NS mm1.node.dc1.consul."}, []string{"A 10.0.0.1"}},
		{"apex NS", "consul", mdns.TypeNS, ok, []string{"NS mm1.node.dc1.consul."}, nil, []string{"A 10.0.0.1"}},
		{"apex A", "consul", mdns.TypeA, ok, nil, soa, nil},
		{"ns", "ns.consul", mdns.TypeA, ok, []string{"A 10.0.0.1"}, nil, nil},
		{"nonsense", "a.b.c.consul", mdns.TypeA, nx, nil, soa, nil},
		{"empty service", "service.consul", mdns.TypeA, nx, nil, soa, nil},
		{"PTR of a node", "11.0.0.10.in-addr.arpa", mdns.TypePTR, ok, []string{"PTR ms1.node.dc1.consul."}, nil, nil},
		{"PTR of a service", "2.9.9.10.in-addr.arpa", mdns.TypePTR, ok, []string{"PTR pg.service.consul."}, nil, nil},
		{"PTR IPv6", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", mdns.TypePTR, ok, []string{"PTR v6.service.consul."}, nil, nil},
		{"PTR unknown", "9.9.9.9.in-addr.arpa", mdns.TypePTR, nx, nil, soa, nil},
		{"host of a route", "app-test", mdns.TypeA, ok, []string{"A 192.168.56.100"}, nil, nil},
		{"host with domain", "App-Test.example.org", mdns.TypeA, ok, []string{"A 192.168.56.100"}, nil, nil},
		{"host no AAAA", "app-test", mdns.TypeAAAA, ok, nil, nil, nil},
		{"not ours", "example.com", mdns.TypeA, mdns.RcodeRefused, nil, nil, nil},
		{"suffix is no zone", "webconsul", mdns.TypeA, mdns.RcodeRefused, nil, nil, nil},
		{"AXFR", "consul", mdns.TypeAXFR, mdns.RcodeNotImplemented, nil, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := question(tt.qname, tt.qtype)
			m := s.Answer(req, false)
			if m.Rcode != tt.rcode {
				t.Errorf("rcode = %s, want %s", mdns.RcodeToString[m.Rcode], mdns.RcodeToString[tt.rcode])
			}
			if !slices.Equal(brief(m.Answer), tt.answer) || !slices.Equal(brief(m.Ns), tt.ns) || !slices.Equal(brief(m.Extra), tt.extra) {
				t.Errorf("got\n%s", m)
			}
			if m.Id != req.Id || !m.Response || m.Question[0].Name != mdns.Fqdn(tt.qname) {
				t.Errorf("header = %+v", m.MsgHdr)
			}
			for _, rr := range m.Answer {
				if rr.Header().Ttl == 0 {
					t.Errorf("TTL 0: %s", rr)
				}
			}
			if _, err := m.Pack(); err != nil {
				t.Errorf("pack: %v", err)
			}
		})
	}
}

func TestOnlyPassing(t *testing.T) {
	cfg := config(cluster())
	cfg.OnlyPassing = true
	if m := server(t, cfg).Answer(question("pg.service.consul", mdns.TypeA), false); m.Rcode != mdns.RcodeNameError {
		t.Errorf("got %s", m)
	}
}

// many is a service with n instances on n addresses.
func many(n int) *discoverytest.Cluster {
	c := discoverytest.New()
	for i := range n {
		addr := fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)
		c.Must(&command.RegisterService{Service: &model.ExternalService{Node: fmt.Sprintf("node-%d", i), NodeAddr: addr, ID: "web", Name: "web", Port: 80}})
	}
	return c
}

// running serves on loopback until the test ends.
func running(t testing.TB, cfg dns.Config) string {
	cfg.Addrs = []string{"127.0.0.1:0"}
	s := server(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run = %v", err)
		}
	})
	return s.Addrs()[0]
}

func exchange(t *testing.T, network, addr string, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 5 * time.Second}
	answer, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestTruncationAndTCP(t *testing.T) {
	addr := running(t, config(many(300)))
	plain := question("web.service.consul", mdns.TypeA)
	m := exchange(t, "udp", addr, plain)
	m.Compress = true // as it came
	if !m.Truncated || len(m.Answer) == 0 || m.Len() > 512 {
		t.Errorf("UDP: tc=%v %d answers %d bytes", m.Truncated, len(m.Answer), m.Len())
	}
	wide := question("web.service.consul", mdns.TypeA).SetEdns0(4096, false)
	m2 := exchange(t, "udp", addr, wide)
	if !m2.Truncated || len(m2.Answer) <= len(m.Answer) || m2.IsEdns0() == nil {
		t.Errorf("EDNS: tc=%v %d answers", m2.Truncated, len(m2.Answer))
	}
	m3 := exchange(t, "tcp", addr, plain)
	if m3.Truncated || len(m3.Answer) != 300 {
		t.Errorf("TCP: tc=%v %d answers", m3.Truncated, len(m3.Answer))
	}
	m4 := exchange(t, "udp", addr, question("web.service.consul", mdns.TypeSRV))
	if !m4.Truncated {
		t.Error("SRV over UDP is not marked")
	}
	if a, b := brief(m.Answer), brief(exchange(t, "udp", addr, plain).Answer); slices.Equal(a, b) {
		t.Error("answers are not shuffled")
	}
}

func TestEDNS(t *testing.T) {
	s := server(t, config(cluster()))
	req := question("ms1.node.consul", mdns.TypeA).SetEdns0(1232, false)
	req.IsEdns0().Option = append(req.IsEdns0().Option, &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 24, Address: net.IP{10, 0, 0, 0}})
	opt := s.Answer(req, true).IsEdns0()
	if opt == nil || len(opt.Option) != 1 || opt.Option[0].(*mdns.EDNS0_SUBNET).SourceScope != 0 {
		t.Errorf("opt = %v", opt)
	}
	bad := question("ms1.node.consul", mdns.TypeA).SetEdns0(1232, false)
	bad.IsEdns0().SetVersion(1)
	if m := s.Answer(bad, true); m.Rcode != mdns.RcodeBadVers {
		t.Errorf("rcode = %d", m.Rcode)
	}
}

func TestRecursors(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg).SetReply(r)
		rr, _ := mdns.NewRR(r.Question[0].Name + " 60 IN A 1.2.3.4")
		m.Answer = []mdns.RR{rr}
		w.WriteMsg(m)
	})}
	go upstream.ActivateAndServe()
	t.Cleanup(func() { upstream.Shutdown() })

	dead, _ := net.ListenPacket("udp", "127.0.0.1:0") // a port that refuses
	deadAddr := dead.LocalAddr().String()
	dead.Close()
	cfg := config(cluster())
	cfg.Recursors = []string{deadAddr, pc.LocalAddr().String()}
	s := server(t, cfg)
	m := s.Answer(question("example.com", mdns.TypeA), true)
	if !slices.Equal(brief(m.Answer), []string{"A 1.2.3.4"}) || !m.RecursionAvailable {
		t.Errorf("got %s", m)
	}
	if m := s.Answer(question("far.service.consul", mdns.TypeA), true); !slices.Equal(brief(m.Answer), []string{"A 1.2.3.4", "CNAME far.example.com."}) {
		t.Errorf("chased: %s", m)
	}
	cfg.Recursors = []string{deadAddr}
	if m := server(t, cfg).Answer(question("example.com", mdns.TypeA), true); m.Rcode != mdns.RcodeServerFailure {
		t.Errorf("all dead: %s", m)
	}
}

// A server that is its own recursor refuses instead of asking itself.
func TestRecursorIsNotItself(t *testing.T) {
	free, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := free.Addr().String()
	free.Close()
	cfg := config(cluster())
	cfg.Addrs, cfg.Recursors = []string{addr}, []string{addr}
	if m := server(t, cfg).Answer(question("example.com", mdns.TypeA), true); m.Rcode != mdns.RcodeRefused || m.RecursionAvailable {
		t.Errorf("got %s", m)
	}
}

func TestPortInUse(t *testing.T) {
	first := server(t, dns.Config{Catalog: fixed{}, Addrs: []string{"127.0.0.1:0"}})
	if _, err := dns.New(dns.Config{Catalog: fixed{}, Addrs: first.Addrs()}); err == nil || !strings.Contains(err.Error(), first.Addrs()[0]) {
		t.Errorf("err = %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.service.consul", "_a._tcp.consul", "1.0.0.10.in-addr.arpa", "0a000001.addr.consul", "consul", "."} {
		raw, _ := question(name, mdns.TypeANY).Pack()
		f.Add(raw)
	}
	s := server(f, config(cluster()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		req := new(mdns.Msg)
		if req.Unpack(raw) != nil {
			return
		}
		m := s.Answer(req, true)
		if m.Id != req.Id || !m.Response {
			t.Errorf("header = %+v", m.MsgHdr)
		}
		packed, err := m.Pack()
		if err == nil && len(packed) > 1232 {
			t.Errorf("UDP answer of %d bytes", len(packed))
		}
	})
}

func FuzzName(f *testing.F) {
	for _, name := range []string{"web.service", "a.b.c.service.dc1", "_a._b", "..", "x.node", "zz.addr", strings.Repeat("a.", 100)} {
		f.Add(name)
	}
	s := server(f, config(cluster()))
	f.Fuzz(func(t *testing.T, prefix string) {
		for _, suffix := range []string{"consul.", "in-addr.arpa.", "ip6.arpa."} {
			req := new(mdns.Msg)
			req.Question = []mdns.Question{{Name: prefix + "." + suffix, Qtype: mdns.TypePTR, Qclass: mdns.ClassINET}}
			if m := s.Answer(req, true); m == nil {
				t.Error("no answer")
			}
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	s := server(b, config(many(10)))
	req := question("web.service.consul", mdns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		m := s.Answer(req, true)
		m.Pack()
	}
}

func BenchmarkUDP(b *testing.B) {
	addr := running(b, config(many(10)))
	raw, _ := question("web.service.consul", mdns.TypeA).Pack()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		buf := make([]byte, 1500)
		for pb.Next() {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			conn.Write(raw)
			if _, err := conn.Read(buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
