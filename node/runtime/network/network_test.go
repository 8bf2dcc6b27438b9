package network

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"pgregory.net/rapid"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
)

func TestMain(m *testing.M) { os.Exit(runtimetest.Isolate(m)) }

func TestAddressesAreFreeAndRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subnet := netip.PrefixFrom(netip.MustParseAddr("10.1.2.0"), rapid.IntRange(24, 29).Draw(t, "bits"))
		size := 1<<(32-subnet.Bits()) - 3 // without network, gateway, broadcast
		used, last := map[netip.Addr]bool{}, netip.Addr{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				a, err := nextFree(subnet, last, used)
				if (err != nil) != (len(used) == size) {
					t.Fatalf("%d of %d taken: %v, %v", len(used), size, a, err)
				}
				if err != nil {
					return
				}
				if used[a] || !subnet.Contains(a) || !subnet.Contains(a.Next()) || !gateway(subnet).Less(a) {
					t.Fatalf("gave %v", a)
				}
				if a == last && size > len(used)+1 {
					t.Fatalf("gave %v twice in a row", a)
				}
				used[a], last = true, a
			},
			"give back": func(t *rapid.T) {
				for a := range used {
					delete(used, a)
					return
				}
			},
			"": func(*rapid.T) {},
		})
	})
}

func TestPickSubnet(t *testing.T) {
	p := netip.MustParsePrefix
	got, err := pickSubnet([]netip.Prefix{p("0.0.0.0/0"), p("172.29.0.0/23"), p("172.29.2.128/25"), p("10.0.0.0/8")})
	if err != nil || got != p("172.29.3.0/24") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := pickSubnet([]netip.Prefix{p("172.16.0.0/12")}); err == nil {
		t.Error("chose a subnet that is routed elsewhere")
	}
}

func TestCollide(t *testing.T) {
	m := func(ip string, port uint16, proto string) runtime.PortMapping {
		return runtime.PortMapping{HostIP: ip, HostPort: port, Protocol: proto}
	}
	for _, tc := range []struct {
		name string
		a, b runtime.PortMapping
		want bool
	}{
		{"same", m("", 80, ""), m("", 80, "tcp"), true},
		{"protocols apart", m("", 80, "udp"), m("", 80, "tcp"), false},
		{"addresses apart", m("10.0.0.1", 80, ""), m("10.0.0.2", 80, ""), false},
		{"wildcard over address", m("0.0.0.0", 80, ""), m("10.0.0.2", 80, ""), true},
	} {
		if got := collide(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func open(t *testing.T, run string) *Network {
	t.Helper()
	n, err := Open(Config{Run: run})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAttachSurvivesReopenAndLeavesNothing(t *testing.T) {
	runtimetest.NeedsRoot(t)
	run := t.TempDir()
	n := open(t, run)
	if err := n.Probe(); err != nil {
		t.Fatal(err)
	}
	first, err := n.Attach("a", []runtime.PortMapping{{HostPort: 18080, ContainerPort: 80}, {HostPort: 18053, ContainerPort: 53, Protocol: "udp"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach("b", nil); err != nil {
		t.Fatal(err)
	}
	n = open(t, run)
	again, err := n.Attach("a", nil)
	if err != nil || again != first {
		t.Errorf("after reopening %+v, %v; before %+v", again, err, first)
	}
	if err := n.Recover(map[string]bool{"b": true}); err != nil {
		t.Fatal(err)
	}
	if ids := n.IDs(); len(ids) != 1 || ids[0] != "b" {
		t.Errorf("after recovery: %v", ids)
	}
	for range 2 {
		if err := n.Detach("b"); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(run); len(left) > 0 {
		t.Error("left:", left)
	}
	links, err := routed()
	if err != nil || len(links) > 0 {
		t.Errorf("routes left: %v, %v", links, err)
	}
}

// Docker sets the policy of FORWARD to drop; containers must still reach out.
func TestForwardPolicyDrop(t *testing.T) {
	runtimetest.NeedsRoot(t)
	withForwardDrop(t)
	n := open(t, t.TempDir())
	if _, err := n.Attach("a", nil); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		_, ch, rules, err := forwardChain()
		if err != nil || ch == nil {
			t.Fatal(ch, err)
		}
		return len(rules)
	}
	if got := count(); got != 3 {
		t.Errorf("%d rules in FORWARD, want 3", got)
	}
	if _, err := n.Attach("b", nil); err != nil || count() != 3 {
		t.Errorf("after another container %d rules, %v", count(), err)
	}
	for _, id := range []string{"a", "b"} {
		if err := n.Detach(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != 0 {
		t.Errorf("%d rules are left in FORWARD", got)
	}
}

// A node whose run directory was lost while its network namespace stayed must
// not go on sending published ports to containers that are gone.
func TestRecoverAfterLostRunDirectory(t *testing.T) {
	runtimetest.NeedsRoot(t)
	n := open(t, t.TempDir())
	if _, err := n.Attach("a", []runtime.PortMapping{{HostPort: 18081, ContainerPort: 80}}); err != nil {
		t.Fatal(err)
	}
	if err := removeNetns(n.netns("a")); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, t.TempDir())
	if err := fresh.Recover(nil); err != nil {
		t.Fatal(err)
	}
	if fresh.bridgeExists() {
		t.Error("the bridge is left")
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables {
		if tb.Name == tableName {
			t.Error("the rules are left")
		}
	}
}
