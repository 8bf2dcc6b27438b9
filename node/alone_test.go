package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/node/needs"
)

// While no master is there an agent answers for names as it last knew them and
// says that nobody leads, also after a restart in the middle of it. When the
// masters are back it follows them again.
func TestAnAgentAnswersForNamesWithoutMasters(t *testing.T) {
	t.Parallel()
	mm1 := found(t)
	mm2 := start(t, mm1.admit("mm2", model.RoleMaster)).listen()
	mm1.votes("mm1 mm2", "")
	ms1 := start(t, mm1.admit("ms1", model.RoleAgent)).listen()
	ms1.names()
	const service = `{"ID": "web-1", "Name": "web", "Address": "192.0.2.7", "Port": 8000}`
	if _, _, err := ms1.call(http.MethodPut, "/v1/agent/service/register", service); err != nil {
		t.Fatal(err)
	}
	const want = "8000 on 192.0.2.7"
	ms1.until("the service has a name", func() bool { return ms1.resolve() == want })
	if st := ms1.status(); !st.Fresh || st.Leader == "" {
		t.Fatalf("with masters: fresh %v, leader %q", st.Fresh, st.Leader)
	}

	mm2.stop()
	mm1.stop()
	ms1.until("it says that the masters are away", ms1.masterless)
	ms1.serves(want)
	if err := ms1.put("alone", "x"); err == nil || !strings.Contains(err.Error(), "No cluster leader") {
		t.Errorf("a write was answered by %v", err)
	}
	ms1.stop()
	ms1 = start(t, ms1.cfg).listen()
	ms1.names()
	ms1.until("it says so after a restart", ms1.masterless)
	ms1.serves(want)

	for _, m := range []*live{mm1, mm2} {
		start(t, m.cfg).listen()
	}
	ms1.until("it follows the masters again", func() bool {
		st := ms1.status()
		return st.Fresh && st.Leader != "" && ms1.put("back", "x") == nil
	})
	ms1.until("the name is still known", func() bool { return ms1.resolve() == want })
}

// names opens the DNS server, if this machine has none on its loopback.
func (l *live) names() {
	l.t.Helper()
	free, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", portDNS))
	if err != nil {
		needs.Missing(l.t, "the port of our DNS is in use: %v", err)
	}
	free.Close()
	before := len(l.Node.parts)
	if err := l.openDNS(l.ctx); err != nil {
		l.t.Fatal(err)
	}
	for _, p := range l.Node.parts[before:] {
		l.run(p)
	}
}

// resolve asks the node's DNS for the service web, over UDP.
func (l *live) resolve() string {
	ask := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(l.cfg.Advertise, portDNS))
	}}
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	_, srv, err := ask.LookupSRV(ctx, "", "", "web.service.consul.")
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, s := range srv {
		addrs, err := ask.LookupHost(ctx, s.Target)
		if err != nil {
			return err.Error()
		}
		out = append(out, fmt.Sprintf("%d on %s", s.Port, strings.Join(addrs, ",")))
	}
	return strings.Join(out, " ")
}

func (l *live) status() (st api.Status) {
	l.t.Helper()
	l.view("/status", &st)
	return st
}

func away(f doctor.Finding) bool { return f.Code == doctor.MastersAway }

// masterless reports whether the node says to operators that it has no masters.
func (l *live) masterless() bool {
	st := l.status()
	var d doctor.Report
	l.view("/doctor", &d)
	return !st.Fresh && st.Leader == "" && slices.ContainsFunc(st.Findings, away) && slices.ContainsFunc(d.Findings, away) &&
		slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, "0 of 2 masters answer") })
}

// serves fails unless names are resolved and the catalog answers, with the word
// that nobody leads.
func (l *live) serves(want string) {
	l.t.Helper()
	if got := l.resolve(); got != want {
		l.t.Errorf("the service resolves to %q, want %q", got, want)
	}
	resp, text, err := l.call(http.MethodGet, "/v1/health/service/web", "")
	if err != nil || !strings.Contains(text, "192.0.2.7") || resp.Header.Get("X-Consul-KnownLeader") != "false" {
		l.t.Errorf("the catalog: %v %q %v", err, text, resp)
	}
}
