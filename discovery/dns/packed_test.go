package dns_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/dns"
	"appliance/node/model"
	"appliance/raft/command"

	mdns "github.com/miekg/dns"
)

func packedQuestion(name string, qtype uint16, edns uint16, do bool) []byte {
	m := question(name, qtype)
	if edns > 0 {
		m.SetEdns0(edns, do)
	}
	raw, _ := m.Pack()
	return raw
}

// equalAnswers compares a quick answer with the one that the long way gives,
// but for the order.
func equalAnswers(t *testing.T, s *dns.Server, raw, quick []byte) {
	t.Helper()
	req, got := new(mdns.Msg), new(mdns.Msg)
	if err := req.Unpack(raw); err != nil {
		t.Fatalf("a quick answer to what is no question: %v", err)
	}
	if err := got.Unpack(quick); err != nil {
		t.Fatalf("%v in %x", err, quick)
	}
	want := s.Answer(req, true)
	long, err := want.Pack()
	if err != nil {
		t.Fatal(err)
	}
	want = new(mdns.Msg)
	if err := want.Unpack(long); err != nil {
		t.Fatal(err)
	}
	equal := len(got.Answer) == len(want.Answer) && slices.Equal(brief(got.Ns), brief(want.Ns)) && slices.Equal(brief(got.Extra), brief(want.Extra))
	equal = equal && (got.Truncated || slices.Equal(brief(got.Answer), brief(want.Answer)))
	for i := range min(len(got.Answer), len(want.Answer)) {
		g, w := *got.Answer[i].Header(), *want.Answer[i].Header()
		g.Rdlength, w.Rdlength = 0, 0 // depends on compression
		equal = equal && g == w
	}
	a, b := got.IsEdns0(), want.IsEdns0()
	equal = equal && (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
	if !equal || got.MsgHdr != want.MsgHdr || !slices.Equal(got.Question, want.Question) || len(quick) > len(long) {
		t.Errorf("%d bytes:\n%s\nthe long way, %d bytes:\n%s", len(quick), got, len(long), want)
	}
}

func TestQuickAnswersAreTheSame(t *testing.T) {
	tests := []struct {
		name  string
		qname string
		qtype uint16
		quick bool
	}{
		{"service", "notejam-test.service.consul", mdns.TypeA, true},
		{"mixed case", "NoteJam-Test.SERVICE.consul", mdns.TypeA, true},
		{"tag", "v1.notejam-test.service.consul", mdns.TypeA, true},
		{"datacenter", "notejam-test.service.dc1.consul", mdns.TypeA, true},
		{"IPv6", "v6.service.consul", mdns.TypeAAAA, true},
		{"no AAAA", "notejam-test.service.consul", mdns.TypeAAAA, true},
		{"no such service", "none.service.consul", mdns.TypeA, true},
		{"other datacenter", "notejam-test.service.dc9.consul", mdns.TypeA, true},
		{"node", "ms1.node.consul", mdns.TypeA, true},
		{"node TXT", "ms1.node.consul", mdns.TypeTXT, true},
		{"one SRV", "pg.service.consul", mdns.TypeSRV, true},
		{"two SRV", "notejam-test.service.consul", mdns.TypeSRV, false},
		{"SOA", "consul", mdns.TypeSOA, true},
		{"CNAME", "far.service.consul", mdns.TypeA, false},
		{"host of a route", "app-test", mdns.TypeA, false},
		{"reverse", "11.0.0.10.in-addr.arpa", mdns.TypePTR, false},
		{"not ours", "example.com", mdns.TypeA, false},
		{"transfer", "consul", mdns.TypeAXFR, false},
	}
	s := server(t, config(cluster()))
	answer, _ := s.Quick()
	for _, tt := range tests {
		for _, edns := range []uint16{0, 100, 1232, 4096} {
			raw := packedQuestion(tt.qname, tt.qtype, edns, edns == 1232)
			for range 2 { // made, and kept
				quick := answer(raw)
				if (quick != nil) != tt.quick {
					t.Errorf("%s: quick = %v", tt.name, quick != nil)
				} else if quick != nil {
					t.Run(tt.name, func(t *testing.T) { equalAnswers(t, s, raw, quick) })
				}
			}
		}
	}
}

func TestQuickAnswerIsTruncated(t *testing.T) {
	s := server(t, config(many(300)))
	answer, _ := s.Quick()
	for _, edns := range []uint16{0, 512, 900, 4096} {
		raw := packedQuestion("web.service.consul", mdns.TypeA, edns, false)
		quick := answer(raw)
		if quick == nil || quick[2]&0x02 == 0 {
			t.Fatalf("EDNS %d: %x", edns, quick)
		}
		equalAnswers(t, s, raw, quick)
	}
}

// Every address is as often the first, even in answers that have no room for
// all.
func TestQuickAnswersSpread(t *testing.T) {
	const n, rounds = 40, 20000
	answer, _ := server(t, config(many(n))).Quick()
	raw := packedQuestion("web.service.consul", mdns.TypeA, 0, false)
	first, given := map[string]int{}, map[string]int{}
	var m mdns.Msg
	for range rounds {
		if err := m.Unpack(answer(raw)); err != nil {
			t.Fatal(err)
		}
		first[m.Answer[0].(*mdns.A).A.String()]++
		for _, rr := range m.Answer {
			given[rr.(*mdns.A).A.String()]++
		}
	}
	each := len(m.Answer) * rounds / n
	for addr := range given {
		if k := first[addr]; k < rounds/n/2 || k > rounds/n*2 {
			t.Errorf("%s came first %d times of %d", addr, k, rounds)
		}
		if k := given[addr]; k < each*9/10 || k > each*11/10 {
			t.Errorf("%s was given %d times, not about %d", addr, k, each)
		}
	}
	if len(given) != n {
		t.Errorf("%d addresses were given", len(given))
	}
}

type latest struct{ store func() *discovery.Table }

func (l latest) Current() *discovery.Table { return l.store() }

// An answer over a socket shows the catalog of the moment, and the clock.
func TestQuickAnswersAreFresh(t *testing.T) {
	c := cluster()
	table := discovery.Catalog(c.Store.Snapshot(), discovery.AllAlive{})
	cfg := config(c)
	now := time.Unix(1700000000, 0)
	cfg.Now = func() time.Time { return now }
	cfg.Catalog = latest{func() *discovery.Table { return table }}
	answer, _ := server(t, cfg).Quick()
	ask := func(name string) *mdns.Msg {
		var m mdns.Msg
		if err := m.Unpack(answer(packedQuestion(name, mdns.TypeA, 0, false))); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	if m := ask("new.service.consul"); m.Rcode != mdns.RcodeNameError {
		t.Errorf("before: %s", m)
	}
	for i := range 3 {
		addr := fmt.Sprintf("10.7.7.%d", i+1)
		c.Must(&command.RegisterService{Service: &model.ExternalService{Node: "out", NodeAddr: addr, ID: "new", Name: "new", Address: addr, Port: 1}})
		table = discovery.Rebuild(table, c.Store.Snapshot(), discovery.AllAlive{})
		if m := ask("new.service.consul"); !slices.Equal(brief(m.Answer), []string{"A " + addr}) {
			t.Errorf("change %d: %s", i, m)
		}
	}
	ask("none.service.consul")
	now = now.Add(time.Second)
	if m := ask("none.service.consul"); m.Ns[0].(*mdns.SOA).Serial != 1700000001 {
		t.Errorf("serial: %s", m)
	}
}

func TestQuickAnswersAreBounded(t *testing.T) {
	answer, size := server(t, config(many(2))).Quick()
	most := 0
	for i := range 20000 {
		answer(packedQuestion(fmt.Sprintf("name-%d.service.consul", i), mdns.TypeA, 0, false))
		most = max(most, size())
	}
	if most > dns.MaxPacked+1<<16 || most < dns.MaxPacked/2 {
		t.Errorf("keeps %d bytes", most)
	}
}

// Questions of both kinds in one burst all get their answers.
func TestBurst(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0"} {
		cfg := config(cluster())
		cfg.Addrs = []string{listen}
		s, err := dns.New(cfg)
		if err != nil {
			t.Logf("%s: %v", listen, err)
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		burst(t, s.Addrs()[0])
		cancel()
		<-done
	}
}

func burst(t *testing.T, addr string) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	names := []string{"notejam-test.service.consul", "example.com", "none.service.consul", "app-test"}
	missing := map[uint16]string{}
	for i := range 100 {
		m := question(names[i%len(names)], mdns.TypeA)
		m.Id = uint16(i)
		raw, _ := m.Pack()
		missing[m.Id] = m.Question[0].Name
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 2000)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for len(missing) > 0 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v; no answer to %d questions", addr, err, len(missing))
		}
		var m mdns.Msg
		if err := m.Unpack(buf[:n]); err != nil || m.Question[0].Name != missing[m.Id] {
			t.Fatalf("%v: %s", err, &m)
		}
		delete(missing, m.Id)
	}
}

func FuzzQuick(f *testing.F) {
	for _, name := range []string{"notejam-test.service.consul", "Far.service.consul", "ms1.node.consul", "0a000001.addr.consul", "consul", "."} {
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeSRV, mdns.TypeANY} {
			f.Add(packedQuestion(name, qtype, 0, false))
			f.Add(packedQuestion(name, qtype, 1232, true))
		}
	}
	s := server(f, config(cluster()))
	answer, _ := s.Quick()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if quick := answer(raw); quick != nil {
			equalAnswers(t, s, raw, quick)
		}
	})
}
