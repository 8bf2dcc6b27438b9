package vip

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The test binary is also the node and the prober, which run in namespaces as
// processes of their own, so that they can be killed in earnest.
func TestMain(m *testing.M) {
	switch os.Getenv("VIP_TEST_ROLE") {
	case "node":
		runNode()
	case "probe":
		runProbe()
	default:
		os.Exit(m.Run())
	}
}

func runNode() {
	var i Instance
	if err := json.Unmarshal([]byte(os.Getenv("VIP_TEST_CONFIG")), &nodeConfig{Instance: &i}); err != nil {
		panic(err)
	}
	i.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	sick := make(chan os.Signal, 1)
	signal.Notify(sick, syscall.SIGUSR1)
	ill := false
	i.Health = func() bool {
		select {
		case <-sick:
			ill = true
		default:
		}
		return !ill
	}
	if err := i.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// nodeConfig is what of an Instance travels to a node process.
type nodeConfig struct{ *Instance }

type wireConfig struct {
	Priority  uint8
	Addr      string
	NoPreempt bool
	Lease     string // file that stands for the cluster's log; "" is no fencing
}

func (c *nodeConfig) UnmarshalJSON(b []byte) error {
	var w wireConfig
	err := json.Unmarshal(b, &w)
	*c.Instance = Instance{
		Name: "test", Interface: "eth0", VRID: 51, Priority: w.Priority, NoPreempt: w.NoPreempt,
		Addresses: []netip.Prefix{netip.MustParsePrefix(w.Addr)},
	}
	if w.Lease != "" {
		c.Instance.Lease = &fileLease{path: w.Lease, me: fmt.Sprint(w.Priority)}
	}
	return err
}

// fileLease keeps "holder until" in a locked file that all nodes see.
type fileLease struct{ path, me string }

const leaseTerm = 600 * time.Millisecond

func (l *fileLease) edit(change func(holder string, until time.Time) (string, time.Time)) error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	var holder string
	var ns int64
	fmt.Fscan(f, &holder, &ns) // empty at first
	holder, until := change(holder, time.Unix(0, ns))
	f.Truncate(0)
	_, err = f.WriteAt([]byte(fmt.Sprint(holder, " ", until.UnixNano())), 0)
	return err
}

func (l *fileLease) Acquire(context.Context, string) (ok bool, until time.Time, err error) {
	now := time.Now()
	until = now.Add(leaseTerm)
	err = l.edit(func(holder string, end time.Time) (string, time.Time) {
		if ok = holder == l.me || now.After(end); ok {
			return l.me, until
		}
		return holder, end
	})
	return ok, until, err
}

func (l *fileLease) Release(context.Context, string) error {
	return l.edit(func(holder string, end time.Time) (string, time.Time) {
		if holder == l.me {
			end = time.Unix(1, 0)
		}
		return holder, end
	})
}

// runProbe pings an address every 2 ms and prints the time of each answer.
func runProbe() {
	vip := netip.MustParseAddr(os.Getenv("VIP_TEST_CONFIG"))
	network, echo := "ip4:icmp", []byte{8, 0, 0, 0, 0x77, 0x77, 0, 1}
	if vip.Is6() {
		network, echo = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0x77, 0x77, 0, 1} // the kernel sums ICMPv6
	} else {
		s := ^fold(sum(echo))
		echo[2], echo[3] = byte(s>>8), byte(s)
	}
	c, err := net.ListenPacket(network, "")
	if err != nil {
		panic(err)
	}
	go func() {
		for range time.Tick(2 * time.Millisecond) {
			c.WriteTo(echo, &net.IPAddr{IP: vip.AsSlice()}) // unreachable at first
		}
	}()
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err == nil && n == 8 && (buf[0] == 0 || buf[0] == 129) && from.(*net.IPAddr).IP.Equal(vip.AsSlice()) {
			fmt.Println(time.Now().UnixNano())
		}
	}
}

// link is a bridge in a namespace of its own, with hosts on it.
type link struct {
	t     *testing.T
	hub   string
	hosts map[string]*host
}

type host struct {
	l      *link
	ns     string
	port   string // hub's end of its cable
	handle *netlink.Handle
	cmd    *exec.Cmd
}

var labs int

func newLink(t *testing.T, names ...string) *link {
	t.Helper()
	needs.Root(t)
	labs++
	prefix := fmt.Sprintf("vip%d-%d-", os.Getpid(), labs)
	l := &link{t: t, hub: prefix + "hub", hosts: map[string]*host{}}
	l.namespace(l.hub)
	l.ip(l.hub, "link add br0 type bridge")
	l.ip(l.hub, "link set br0 up")
	for i, name := range names {
		h := &host{l: l, ns: prefix + name, port: fmt.Sprint("p", i)}
		l.namespace(h.ns)
		l.ip(l.hub, fmt.Sprintf("link add %s type veth peer name eth0 netns %s", h.port, h.ns))
		l.ip(l.hub, fmt.Sprintf("link set %s master br0 up", h.port))
		l.ip(h.ns, fmt.Sprintf("addr add 10.77.0.%d/24 dev eth0", i+1))
		l.ip(h.ns, fmt.Sprintf("addr add fd77::%d/64 dev eth0 nodad", i+1))
		l.ip(h.ns, "link set eth0 up")
		l.ip(h.ns, "link set lo up")
		at, err := netns.GetFromName(h.ns)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if h.handle, err = netlink.NewHandleAt(at); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.handle.Close)
		l.hosts[name] = h
	}
	for _, h := range l.hosts { // the kernel makes it when the cable works
		wait(t, "a link-local address", 5*time.Second, func() bool { return h.has(netip.Addr.IsLinkLocalUnicast) })
	}
	return l
}

func (l *link) namespace(name string) {
	l.t.Helper()
	l.run("ip", "netns", "add", name)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	for _, which := range []string{"all", "default"} { // duplicate detection takes seconds
		l.run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf."+which+".accept_dad=0")
	}
}

func (l *link) ip(ns, args string) {
	l.t.Helper()
	l.run("ip", append([]string{"-n", ns}, strings.Fields(args)...)...)
}

func (l *link) run(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// plug connects or cuts a host's cable.
func (h *host) plug(up bool) {
	h.l.t.Helper()
	h.l.ip(h.l.hub, fmt.Sprintf("link set %s %s", h.port, map[bool]string{true: "up", false: "down"}[up]))
}

func (h *host) start(cmd *exec.Cmd) *exec.Cmd {
	t := h.l.t
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func (h *host) self(role, config string) *exec.Cmd {
	cmd := exec.Command("ip", "netns", "exec", h.ns, "/proc/self/exe")
	exe, err := os.Executable()
	if err != nil {
		h.l.t.Fatal(err)
	}
	cmd.Args[4] = exe
	cmd.Env = append(os.Environ(), "VIP_TEST_ROLE="+role, "VIP_TEST_CONFIG="+config)
	return cmd
}

func (h *host) node(w wireConfig) {
	b, _ := json.Marshal(w)
	cmd := h.self("node", string(b))
	cmd.Stderr = h.l.t.Output()
	h.cmd = h.start(cmd)
}

func (h *host) signal(s os.Signal) {
	h.l.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.l.t.Fatal(err)
	}
}

// holds asks the kernel.
func (h *host) holds(vip string) bool {
	at := netip.MustParsePrefix(vip).Addr()
	return h.has(func(a netip.Addr) bool { return a == at })
}

// has reports whether the host has an address of that kind, ready for use.
func (h *host) has(kind func(netip.Addr) bool) bool {
	dev, err := h.handle.LinkByName("eth0")
	if err != nil {
		return false
	}
	as, err := h.handle.AddrList(dev, unix.AF_UNSPEC)
	if err != nil {
		h.l.t.Error(err)
	}
	for _, a := range as {
		if ip, _ := netip.AddrFromSlice(a.IP); kind(ip.Unmap()) && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			return true
		}
	}
	return false
}

func wait(t *testing.T, what string, limit time.Duration, cond func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > limit {
			t.Fatalf("waited %v in vain: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}

// probe collects answers of a VIP as seen by a third host.
type probe struct {
	mu    sync.Mutex
	times []time.Time
}

func (h *host) probe(vip string) *probe {
	cmd := h.self("probe", netip.MustParsePrefix(vip).Addr().String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.l.t.Fatal(err)
	}
	h.start(cmd)
	p := &probe{}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			ns, _ := strconv.ParseInt(s.Text(), 10, 64)
			p.mu.Lock()
			p.times = append(p.times, time.Unix(0, ns))
			p.mu.Unlock()
		}
	}()
	wait(h.l.t, "first answer", 10*time.Second, func() bool { return !p.last().IsZero() })
	return p
}

func (p *probe) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.times) == 0 {
		return time.Time{}
	}
	return p.times[len(p.times)-1]
}

// gap is the longest silence since a time, after which answers came again.
func (p *probe) gap(t *testing.T, since time.Time) (longest time.Duration) {
	t.Helper()
	settled := time.Now().Add(200 * time.Millisecond)
	wait(t, "answers after the event", 10*time.Second, func() bool { return p.last().After(settled) })
	p.mu.Lock()
	defer p.mu.Unlock()
	prev := since
	for _, at := range p.times {
		if at.After(since) {
			longest = max(longest, at.Sub(prev))
			prev = at
		}
	}
	return longest
}
