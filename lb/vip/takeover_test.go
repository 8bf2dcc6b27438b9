package vip

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"
)

const (
	vip4 = "10.77.0.100/24"
	vip6 = "fd77::100/64"
	// crashLimit and plannedLimit are the promises: a crashed holder is replaced,
	// a planned move is done, as seen by a third host.
	crashLimit   = 500 * time.Millisecond
	plannedLimit = 200 * time.Millisecond
)

// pair starts two nodes, a the better one, waits until a holds, and probes.
func pair(t *testing.T, vip string) (l *link, a, b *host, p *probe) {
	l = newLink(t, "a", "b", "client")
	a, b = l.hosts["a"], l.hosts["b"]
	a.node(wireConfig{Priority: 200, Addr: vip})
	b.node(wireConfig{Priority: 100, Addr: vip})
	wait(t, "first election", 5*time.Second, func() bool { return a.holds(vip) })
	p = l.hosts["client"].probe(vip)
	return
}

func TestHolderDies(t *testing.T) {
	for _, vip := range []string{vip4, vip6} {
		t.Run(vip, func(t *testing.T) {
			_, a, b, p := pair(t, vip)
			at := time.Now()
			a.signal(syscall.SIGKILL)
			a.plug(false)
			if gap := p.gap(t, at); gap > crashLimit {
				t.Errorf("away for %v", gap)
			} else {
				t.Logf("away for %v", gap)
			}
			if !b.holds(vip) {
				t.Error("the backup does not hold")
			}
			wait(t, "kernel to forget a dead process's address", 2*lifetime, func() bool { return !a.holds(vip) })
		})
	}
}

func TestLinkDownAndBack(t *testing.T) {
	_, a, b, p := pair(t, vip4)
	at := time.Now()
	a.plug(false)
	if gap := p.gap(t, at); gap > crashLimit {
		t.Errorf("away for %v", gap)
	}
	wait(t, "cut node to let go", time.Second, func() bool { return !a.holds(vip4) })
	at = time.Now()
	a.plug(true)
	wait(t, "return", 5*time.Second, func() bool { return a.holds(vip4) && !b.holds(vip4) })
	if gap := p.gap(t, at); gap > plannedLimit {
		t.Errorf("return cost %v", gap)
	}
}

func TestPlannedHandover(t *testing.T) {
	for name, sig := range map[string]os.Signal{"stopped": syscall.SIGTERM, "sick": syscall.SIGUSR1} {
		t.Run(name, func(t *testing.T) {
			_, a, b, p := pair(t, vip4)
			at := time.Now()
			a.signal(sig)
			wait(t, "handover", 5*time.Second, func() bool { return b.holds(vip4) && !a.holds(vip4) })
			if gap := p.gap(t, at); gap > plannedLimit {
				t.Errorf("away for %v", gap)
			} else {
				t.Logf("away for %v", gap)
			}
		})
	}
}

// A machine that gets another address cannot be heard until its node follows:
// others take over, so it must not hold meanwhile.
func TestHolderThatLosesItsOwnAddressLetsGo(t *testing.T) {
	l, a, b, p := pair(t, vip4)
	l.run("ip", "netns", "exec", a.ns, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
	l.ip(a.ns, "addr add 10.77.0.99/24 dev eth0")
	at := time.Now()
	l.ip(a.ns, "addr del 10.77.0.1/24 dev eth0")
	wait(t, "the holder to let go", lifetime/2, func() bool { return !a.holds(vip4) })
	wait(t, "takeover", 5*time.Second, func() bool { return b.holds(vip4) })
	if gap := p.gap(t, at); gap > crashLimit {
		t.Errorf("away for %v", gap)
	}
}

func TestPausedHolderLetsGo(t *testing.T) {
	_, a, b, _ := pair(t, vip4)
	a.signal(syscall.SIGSTOP)
	wait(t, "takeover", 5*time.Second, func() bool { return b.holds(vip4) })
	wait(t, "kernel to fence", 2*lifetime, func() bool { return !a.holds(vip4) })
	a.signal(syscall.SIGCONT)
	wait(t, "better node to take back", 5*time.Second, func() bool { return a.holds(vip4) && !b.holds(vip4) })
}

func TestOneHolderOnAHealthyLink(t *testing.T) {
	l := newLink(t, "a", "b", "c")
	for name, prio := range map[string]uint8{"a": 150, "b": 150, "c": 100} { // a tie
		l.hosts[name].node(wireConfig{Priority: prio, Addr: vip4})
	}
	holders := func() (n int) {
		for _, h := range l.hosts {
			if h.holds(vip4) {
				n++
			}
		}
		return n
	}
	wait(t, "election", 5*time.Second, func() bool { return holders() == 1 && !l.hosts["c"].holds(vip4) })
	// Equals that start together may both take it, until the first advert; from
	// then on there is one.
	settled := time.Now().Add(3 * DefaultInterval)
	for end := settled.Add(time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if n := holders(); n != 1 && time.Now().After(settled) {
			t.Fatalf("%d holders", n)
		}
	}
}

func TestLeaseFencesAcrossACutLink(t *testing.T) {
	l := newLink(t, "a", "b")
	a, b := l.hosts["a"], l.hosts["b"]
	lease := filepath.Join(t.TempDir(), "lease")
	a.node(wireConfig{Priority: 200, Addr: vip4, Lease: lease})
	b.node(wireConfig{Priority: 100, Addr: vip4, Lease: lease})
	wait(t, "election", 5*time.Second, func() bool { return a.holds(vip4) })
	both := func(d time.Duration) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if a.holds(vip4) && b.holds(vip4) {
				t.Fatal("two holders in spite of the lease")
			}
		}
	}
	// Both links stay up, but nothing passes between: only the lease knows.
	l.ip(l.hub, "link set br0 down")
	both(1500 * time.Millisecond)
	if !a.holds(vip4) {
		t.Error("the holder of the lease let go")
	}
	l.ip(l.hub, "link set br0 up")
	a.signal(syscall.SIGTERM)
	wait(t, "handover", 5*time.Second, func() bool { return b.holds(vip4) })
	both(200 * time.Millisecond)
	a.cmd.Wait()
	a.node(wireConfig{Priority: 200, Addr: vip4, Lease: lease})
	wait(t, "better node to be yielded to", 5*time.Second, func() bool { return a.holds(vip4) && !b.holds(vip4) })
}

// Nodes of ours and Debian's keepalived elect one holder together, and hear
// each other's departure.
func TestInteropKeepalived(t *testing.T) {
	bin := needs.Tool(t, "keepalived", "keepalived")
	l := newLink(t, "a", "b", "client")
	a, b := l.hosts["a"], l.hosts["b"]
	dir := t.TempDir()
	conf := filepath.Join(dir, "keepalived.conf")
	err := os.WriteFile(conf, []byte(`global_defs {
  vrrp_version 3
  vrrp_garp_master_refresh 1
}
vrrp_instance test {
  interface eth0
  state BACKUP
  virtual_router_id 51
  priority 150
  advert_int 0.1
  virtual_ipaddress {
    10.77.0.100/24
  }
}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	file := func(n string) string { return filepath.Join(dir, n) }
	cmd := exec.Command("ip", "netns", "exec", b.ns, bin, "-n", "-l", "-P", "-f", conf, "-p", file("pid"), "-r", file("vrrp"))
	log := &logTail{}
	cmd.Stdout, cmd.Stderr = log, log
	b.cmd = b.start(cmd)
	// -n keeps the parent in front; its child must go with it.
	t.Cleanup(func() {
		b.cmd.Process.Signal(syscall.SIGTERM)
		b.cmd.Wait()
	})
	wait(t, "keepalived alone", 10*time.Second, func() bool { return b.holds(vip4) })

	a.node(wireConfig{Priority: 200, Addr: vip4})
	wait(t, "ours to preempt", 5*time.Second, func() bool { return a.holds(vip4) && !b.holds(vip4) })
	p := l.hosts["client"].probe(vip4)

	at := time.Now()
	a.signal(syscall.SIGTERM)
	wait(t, "keepalived to follow a planned stop", 5*time.Second, func() bool { return b.holds(vip4) && !a.holds(vip4) })
	if gap := p.gap(t, at); gap > plannedLimit {
		t.Errorf("handover to keepalived: away for %v", gap)
	}
	a.cmd.Wait()

	a.node(wireConfig{Priority: 100, Addr: vip4})
	var early atomic.Bool
	var watch sync.WaitGroup
	watch.Go(func() {
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if a.holds(vip4) {
				early.Store(true)
			}
		}
	})
	watch.Wait()
	if early.Load() {
		t.Error("ours took over from a better keepalived")
	}
	at = time.Now()
	b.cmd.Process.Signal(syscall.SIGTERM)
	wait(t, "ours to follow keepalived's stop", 5*time.Second, func() bool { return a.holds(vip4) })
	if gap := p.gap(t, at); gap > crashLimit {
		t.Errorf("handover from keepalived: away for %v", gap)
	}
	if s := log.String(); strings.Contains(strings.ToLower(s), "checksum") || strings.Contains(s, "mismatch") {
		t.Errorf("keepalived complains:\n%s", s)
	}
}

// logTail keeps what a process wrote.
type logTail struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
