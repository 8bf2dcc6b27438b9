package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/vagrant"
)

// testCluster is the real description on a network of this process's own.
func testCluster(t *testing.T) (vagrant.Cluster, Options) {
	t.Helper()
	needs.Root(t)
	c, err := vagrant.Load()
	if err != nil {
		t.Fatal(err)
	}
	third := byte(os.Getpid())
	move := func(a netip.Addr) netip.Addr {
		b := a.As4()
		return netip.AddrFrom4([4]byte{198, 18, third, b[3]}) // RFC 2544: nobody's
	}
	c.Network = netip.PrefixFrom(move(c.Network.Addr()), 24)
	c.Host, c.VIP = move(c.Host), move(c.VIP)
	for i := range c.Machines {
		c.Machines[i].Address = move(c.Machines[i].Address)
	}
	dir, err := os.MkdirTemp("/tmp", "lab") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: filepath.Join(dir, "l"), Name: fmt.Sprintf("t%d", os.Getpid()),
		Env: []string{"GORACE=atexit_sleep_ms=0"}} // the race detector delays each exit by a second

	t.Cleanup(func() {
		if err := Down(context.Background(), o); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
		assertNothingLeft(t, o)
	})
	return c, o
}

func startLab(t *testing.T, c vagrant.Cluster, o Options) *Lab {
	t.Helper()
	l, err := Up(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// assertNothingLeft looks at the host for anything a lab makes.
func assertNothingLeft(t *testing.T, o Options) {
	t.Helper()
	if list := findProcesses(o.Dir); len(list) > 0 {
		t.Errorf("processes left: %v", list)
	}
	inside, _ := filepath.Glob("/proc/[0-9]*/root/usr/local/bin/appliance")
	for _, p := range inside {
		if a, err := os.Stat(p); err == nil {
			if b, err := os.Stat(os.Args[0]); err == nil && a.Size() == b.Size() {
				t.Errorf("a process in a machine is left: %s", p)
			}
		}
	}
	if _, err := net.InterfaceByName(hostLink(o.Name)); err == nil {
		t.Errorf("link %s left", hostLink(o.Name))
	}
	for _, p := range mountPoints() {
		if strings.HasPrefix(p, o.Dir) {
			t.Errorf("mount %s left", p)
		}
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroupOf(o.Name)); len(groups) > 0 {
		t.Errorf("control groups left: %v", groups)
	}
	if _, err := os.Stat(cgroupRoot(o)); err == nil {
		t.Errorf("control group left")
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Errorf("directory %s left", o.Dir)
	}
}

func cgroupRoot(o Options) string { return "/sys/fs/cgroup/" + cgroupOf(o.Name) }

func eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// reach says whether from's probe of to gets an answer.
func reach(t *testing.T, l *Lab, from, to string) error {
	t.Helper()
	c, _ := l.Cluster()
	m, _ := c.Machine(to)
	out, err := l.Output(t.Context(), from, "appliance", "probe", m.Address.String())
	if err == nil && strings.TrimSpace(string(out)) != to {
		err = fmt.Errorf("%s answered for %s", out, to)
	}
	return err
}

func TestLab(t *testing.T) {
	c, o := testCluster(t)
	began := time.Now()
	l := startLab(t, c, o)
	t.Logf("up in %s", time.Since(began).Round(time.Millisecond))
	var joined []string
	order := make(chan string, len(c.Machines))
	if err := l.Bootstrap(t.Context(), func(m string) { order <- m }); err != nil {
		t.Fatal(err)
	}
	close(order)
	for m := range order {
		joined = append(joined, m)
	}
	if len(joined) != 7 || strings.Join(joined[:3], " ") != "mm1 mm2 mm3" {
		t.Errorf("joined %v", joined)
	}
	t.Logf("bootstrapped in %s", time.Since(began).Round(time.Millisecond))

	t.Run("join gets role, attributes and token, and finds the address", func(t *testing.T) {
		args, err := os.ReadFile(filepath.Join(l.DataDir("ms3"), "args"))
		mm1, _ := c.Machine("mm1")
		want := fmt.Sprintf("join --name ms3 --role agent --token APPL1-a --no-start --attribute env=production %s:7600", mm1.Address)
		if err != nil || string(args) != want {
			t.Fatalf("got %q, %v\nwant %q", args, err, want)
		}
	})
	t.Run("all machines reach all", func(t *testing.T) {
		var addresses, want []string
		for _, m := range c.Machines {
			addresses, want = append(addresses, m.Address.String()), append(want, m.Name)
		}
		for _, m := range c.Machines {
			eventually(t, m.Name, func() error {
				out, err := l.Output(t.Context(), m.Name, append([]string{"appliance", "probe"}, addresses...)...)
				if err == nil && strings.Join(strings.Fields(string(out)), " ") != strings.Join(want, " ") {
					err = fmt.Errorf("got %s", out)
				}
				return err
			})
		}
	})
	t.Run("the host reaches a machine by network and socket", func(t *testing.T) {
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.APISocket("mm2"))
		}}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://api/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		m, _ := c.Machine("ms4")
		conn, err := net.DialTimeout("tcp", m.Address.String()+":7000", time.Second)
		if err != nil || string(body) != "mm2" {
			t.Fatalf("%s %v", body, err)
		}
		conn.Close()
	})
	t.Run("a machine is a machine", func(t *testing.T) { machineView(t, l, o, c) })
	t.Run("exec", func(t *testing.T) { execBehaviour(t, l) })
	t.Run("killed service comes back, its children stay", func(t *testing.T) { killAndRestart(t, l) })
	t.Run("power off and on", func(t *testing.T) { powerCycle(t, l) })
	t.Run("pause freezes all processes", func(t *testing.T) { pauseAndResume(t, l) })
	t.Run("link", func(t *testing.T) { linkDownUp(t, l) })
	t.Run("partitions", func(t *testing.T) { partitions(t, l) })
	t.Run("a second lab is refused", func(t *testing.T) {
		if _, err := Up(t.Context(), c, o); err != ErrUp {
			t.Errorf("same directory: %v", err)
		}
		other := o
		other.Dir, other.Name = o.Dir+"2", "x"+o.Name[1:]
		if _, err := Up(t.Context(), c, other); err == nil || !strings.Contains(err.Error(), "already on "+hostLink(o.Name)) {
			t.Errorf("same network: %v", err)
		}
		if _, err := os.Stat(other.Dir); err == nil {
			t.Error("a refused Up made its directory")
		}
	})
	t.Run("runc runs a container in a machine's own control groups", func(t *testing.T) { container(t, l, o) })
}

func machineView(t *testing.T, l *Lab, o Options, c vagrant.Cluster) {
	sh := func(script string) string {
		t.Helper()
		out, err := l.Output(t.Context(), "ms1", "sh", "-c", script)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(out))
	}
	mm2, _ := c.Machine("mm2")
	for _, tt := range []struct{ name, script, want string }{
		{"host name", "hostname; cat /etc/hostname", "ms1\nms1"},
		{"pid 1 is the lab's", "tr '\\0' ' ' </proc/1/cmdline", "appliance-lab ms1"},
		{"hosts file", "getent hosts mm2 | awk '{print $1}'", mm2.Address.String()},
		{"app names are at the VIP", "getent hosts app-test | awk '{print $1}'", c.VIP.String()},
		{"own DNS first", "head -1 /etc/resolv.conf", "nameserver 127.0.0.1"},
		{"only its own links", "ls /sys/class/net | tr '\\n' ' '", "eth0 lo"},
		{"fresh run directory", "ls -A /run /run/appliance | tr '\\n' ' '", "/run: appliance  /run/appliance: api.sock"},
		{"own tmp", "ls -A /tmp", ""},
		{"no look at the lab", "ls -A " + o.Dir + " 2>/dev/null || true", ""},
		{"no host mounts", "cut -d' ' -f2 /proc/mounts | grep -c " + o.Dir + " || true", "0"},
		{"root of its control groups", "cut -d: -f3 /proc/self/cgroup | grep -vc '^/\\(init.scope\\)\\?$' || true", "0"},
		{"writes stay inside", "echo x >/lab-was-here; rm /bin/true; echo $?; ls /lab-was-here", "0\n/lab-was-here"},
	} {
		if got := sh(tt.script); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if _, err := os.Stat("/lab-was-here"); err == nil {
		t.Error("a machine wrote on the host's root")
	}
	eventually(t, "orphans are reaped", func() error {
		sh("(true &) ; (true &)")
		if z := sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true"); z != "" {
			return fmt.Errorf("zombies: %s", z)
		}
		return nil
	})
}

func execBehaviour(t *testing.T, l *Lab) {
	var out, errs bytes.Buffer
	code, err := l.Exec(t.Context(), "mm1", Command{
		Args: []string{"sh", "-c", "cat; echo $GREETING $PWD >&2; exit 7"}, Env: []string{"GREETING=hello"}, Dir: "/usr",
		Stdin: strings.NewReader("from outside"), Stdout: &out, Stderr: &errs,
	})
	if code != 7 || err != nil || out.String() != "from outside" || errs.String() != "hello /usr\n" {
		t.Errorf("%d %v %q %q", code, err, out.String(), errs.String())
	}
	if code, err := l.Exec(t.Context(), "mm1", Command{Args: []string{"no-such-program"}}); code != 127 || err == nil {
		t.Errorf("missing program: %d %v", code, err)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	if code, err := l.Exec(t.Context(), "mm1", Command{Args: []string{"sleep", "100"}, Signals: signals}); code != 128+15 || err != nil {
		t.Errorf("signal: %d %v", code, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Exec(ctx, "mm1", Command{Args: []string{"sleep", "4321"}}); err == nil {
		t.Error("exec outlived its context")
	}
	eventually(t, "cancelled command is killed", func() error {
		out, err := l.Output(t.Context(), "mm1", "sh", "-c", "grep -al 43[2]1 /proc/[0-9]*/cmdline || true")
		if err == nil && len(bytes.TrimSpace(out)) > 0 {
			err = fmt.Errorf("still there: %s", out)
		}
		return err
	})
	if _, err := l.Exec(t.Context(), "mm9", Command{Args: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "mm1, mm2") {
		t.Errorf("unknown machine: %v", err)
	}
}

func serviceOf(t *testing.T, l *Lab, machine string) (MachineStatus, ServiceStatus) {
	t.Helper()
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range st.Machines {
		if m.Name == machine && m.Service != nil {
			return m, *m.Service
		} else if m.Name == machine {
			return m, ServiceStatus{}
		}
	}
	t.Fatalf("no %s in the status", machine)
	return MachineStatus{}, ServiceStatus{}
}

func killAndRestart(t *testing.T, l *Lab) {
	_, before := serviceOf(t, l, "ms2")
	if err := l.Kill(t.Context(), "ms2", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", func() error { return reach(t, l, "ms1", "ms2") })
	_, after := serviceOf(t, l, "ms2")
	if after.State != "running" || after.Restarts != before.Restarts+1 || after.Pid == before.Pid || after.LastExit != "killed by killed" {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if out, _ := l.Output(t.Context(), "ms2", "sh", "-c", "pgrep -xc sleep"); strings.TrimSpace(string(out)) != "2" {
		t.Errorf("children of both runs: %s", out)
	}
	if err := l.Kill(t.Context(), "ms2", true); err != nil {
		t.Fatal(err)
	}
	if _, s := serviceOf(t, l, "ms2"); s.State == "running" {
		t.Errorf("killed to stay: %+v", s)
	}
	if err := l.Start(t.Context(), "ms2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "start", func() error { return reach(t, l, "ms1", "ms2") })
	if err := l.Stop(t.Context(), "ms2"); err != nil {
		t.Fatal(err)
	}
	if _, s := serviceOf(t, l, "ms2"); s.State != "stopped" || s.LastExit == "" {
		t.Errorf("stopped: %+v", s)
	}
	if err := l.Start(t.Context(), "ms2"); err != nil {
		t.Fatal(err)
	}
}

func powerCycle(t *testing.T, l *Lab) {
	if err := l.PowerOff(t.Context(), "mm3"); err != nil {
		t.Fatal(err)
	}
	if m, _ := serviceOf(t, l, "mm3"); m.Power != "off" {
		t.Errorf("%+v", m)
	}
	if err := reach(t, l, "mm1", "mm3"); err == nil {
		t.Error("a machine without power answers")
	}
	if _, err := l.Output(t.Context(), "mm3", "true"); err == nil || !strings.Contains(err.Error(), "lab start mm3") {
		t.Errorf("exec without power: %v", err)
	}
	if err := l.Start(t.Context(), "mm3"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back", func() error { return reach(t, l, "mm1", "mm3") })
	runs, err := os.ReadFile(filepath.Join(l.DataDir("mm3"), "runs"))
	if err != nil || strings.Count(string(runs), "\n") != 2 {
		t.Errorf("the disk did not survive: %q %v", runs, err)
	}
}

func pauseAndResume(t *testing.T, l *Lab) {
	if err := l.Pause("ms4"); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, l, "ms1", "ms4"); err == nil {
		t.Error("a paused machine answers")
	}
	if m, _ := serviceOf(t, l, "ms4"); m.Power != "paused" {
		t.Errorf("%+v", m)
	}
	if err := l.Resume("ms4"); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, l, "ms1", "ms4"); err != nil {
		t.Error(err)
	}
	if err := l.Pause("ms4"); err != nil {
		t.Fatal(err)
	}
	if err := l.PowerOff(t.Context(), "ms4"); err != nil { // a frozen machine dies, too
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), "ms4"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back", func() error { return reach(t, l, "ms1", "ms4") })
}

func linkDownUp(t *testing.T, l *Lab) {
	if err := l.Link("mm2", false); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, l, "mm1", "mm2"); err == nil {
		t.Error("reached over a pulled cable")
	}
	if out, err := l.Output(t.Context(), "mm2", "cat", "/sys/class/net/eth0/carrier"); strings.TrimSpace(string(out)) != "0" {
		t.Errorf("carrier %s %v", out, err)
	}
	if err := l.Link("mm2", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "plugged", func() error { return reach(t, l, "mm1", "mm2") })
}

func partitions(t *testing.T, l *Lab) {
	expect := func(from, to string, want bool) {
		t.Helper()
		if err := reach(t, l, from, to); (err == nil) != want {
			t.Errorf("%s -> %s: %v, want reach %v", from, to, err, want)
		}
	}
	must(t, l.Partition([]string{"mm1"}, []string{"mm2", "ms1"}))
	expect("mm1", "mm2", false)
	expect("ms1", "mm1", false)
	expect("mm2", "ms1", true)
	expect("mm3", "mm1", true) // in no group: a partial partition
	must(t, l.Heal())
	expect("mm1", "mm2", true)
	must(t, l.Partition([]string{"ms3", "ms4"}))
	expect("ms3", "ms4", true)
	expect("ms3", "mm1", false)
	must(t, l.Heal())
	must(t, l.CutOneWay([]string{"mm1"}, []string{"mm2"}))
	st, err := l.Status(t.Context())
	if err != nil || len(st.Cuts) != 1 || st.Cuts[0] != (Cut{"mm1", "mm2"}) {
		t.Errorf("%+v %v", st.Cuts, err)
	}
	expect("mm2", "mm1", false) // a connection needs both ways
	expect("mm1", "mm3", true)
	must(t, l.Lose(100, "ms1"))
	expect("ms2", "ms1", false)
	must(t, l.Heal())
	expect("ms2", "ms1", true)
	expect("mm2", "mm1", true)
	if err := l.Partition([]string{"mm1"}, []string{"mm1"}); err == nil {
		t.Error("a machine in two groups")
	}
	if err := l.Lose(101, "mm1"); err == nil {
		t.Error("loss above 100 %")
	}
}

func container(t *testing.T, l *Lab, o Options) {
	needs.Tool(t, "runc", "docker.io")
	const script = `set -e; mkdir -p /var/lib/appliance/c/rootfs; cd /var/lib/appliance/c
cp -L --parents /bin/cat $(ldd /bin/cat | grep -o '/[^ ]*') rootfs
runc spec; sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"cat","\/proc\/1\/cgroup"/' config.json
runc run one`
	out, err := l.Output(t.Context(), "ms1", "sh", "-c", script)
	if err != nil || !strings.Contains(string(out), "/one") && !strings.Contains(string(out), ":/") {
		t.Errorf("%s %v", out, err)
	}
}

func TestDownAfterCrash(t *testing.T) {
	c, o := testCluster(t)
	c.Machines = c.Machines[:2]
	l := startLab(t, c, o)
	if err := l.Start(t.Context(), "mm1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Pause("mm2"); err != nil {
		t.Fatal(err)
	}
	// The state is damaged and does not know the machines.
	if err := os.WriteFile(filepath.Join(o.Dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := Down(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		assertNothingLeft(t, o)
	}
	if _, err := Open(o.Dir, nil); err != ErrDown {
		t.Error(err)
	}
}

func TestDownAfterUpWasKilled(t *testing.T) {
	c, o := testCluster(t)
	cluster, _ := json.Marshal(c)
	options, _ := json.Marshal(o)
	for _, after := range []time.Duration{5, 30, 60, 90, 120, 150, 200} {
		cmd := exec.Command(os.Args[0], "up", string(cluster), string(options))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond) // any moment will do
		cmd.Process.Kill()
		cmd.Wait()
		must(t, Down(t.Context(), o))
		assertNothingLeft(t, o)
	}
}

func TestUpKeepsDisksOfALabThatDied(t *testing.T) {
	c, o := testCluster(t)
	c.Machines = c.Machines[:1]
	l := startLab(t, c, o)
	if err := l.Bootstrap(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := sweep(t.Context(), o.Dir, o.Name); err != nil { // as after a restart of the host
		t.Fatal(err)
	}
	l = startLab(t, c, o)
	if err := l.Bootstrap(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if st, err := l.Status(t.Context()); err != nil || !st.Machines[0].Member {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := os.Stat(filepath.Join(l.DataDir("mm1"), "args")); err != nil {
		t.Error(err)
	}
}

func TestFailedUpLeavesNothing(t *testing.T) {
	c, o := testCluster(t)
	c.Machines = c.Machines[:2]
	script := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.Binary = script
	if _, err := Up(t.Context(), c, o); err == nil {
		t.Fatal("a broken binary came up")
	}
	assertNothingLeft(t, o)
}

func TestUpRefusesAForeignDirectory(t *testing.T) {
	c, o := testCluster(t)
	o.Dir = t.TempDir()
	precious := filepath.Join(o.Dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(t.Context(), c, o); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatal(err)
	}
	if err := Down(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatal("Down removed what is not a lab's")
	}
}

// A directory without a lab must not end the lab of the same name elsewhere.
func TestDownSparesAnother(t *testing.T) {
	c, o := testCluster(t)
	c.Machines = c.Machines[:1]
	l := startLab(t, c, o)
	other := o
	other.Dir = filepath.Join(t.TempDir(), "nothing")
	if err := Down(t.Context(), other); err != nil {
		t.Error(err)
	}
	if out, err := l.Output(t.Context(), c.Machines[0].Name, "hostname"); err != nil || strings.TrimSpace(string(out)) != c.Machines[0].Name {
		t.Errorf("%s %v", out, err)
	}
}
