package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/lab/fault"
)

// TestFaults makes faults on real machines and sees that each has its effect,
// ends at its deadline or when told, and leaves nothing.
func TestFaults(t *testing.T) {
	c, o := testCluster(t)
	c.Machines = c.Machines[2:4] // mm3, ms1
	o.Lying = true
	l := startLab(t, c, o)
	ctx := t.Context()
	for _, m := range []string{"mm3", "ms1"} {
		if err := l.Start(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(machine, script string) (string, error) {
		out, err := l.Output(ctx, machine, "sh", "-c", script)
		return strings.TrimSpace(string(out)), err
	}
	reachable := func() error { return reach(t, l, "mm3", "ms1") }
	service := func(machine string) ServiceStatus {
		st, err := l.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range st.Machines {
			if m.Name == machine && m.Service != nil {
				return *m.Service
			}
		}
		return ServiceStatus{}
	}
	begin := func(t *testing.T, f fault.Fault, length time.Duration) {
		t.Helper()
		f.ID, f.Length = fault.NewID(), length
		if err := l.Begin(ctx, "ms1", f); err != nil {
			t.Fatal(err)
		}
	}
	over := func(t *testing.T) fault.Ended {
		t.Helper()
		var last fault.Ended
		eventually(t, "the end of the fault", func() error {
			if list, err := l.Faults("ms1"); err != nil || len(list) > 0 {
				return fmt.Errorf("%d in force, %v", len(list), err)
			}
			list, err := l.Ended("ms1")
			for _, e := range list {
				if !e.Began.Before(last.Began) {
					last = e
				}
			}
			return err
		})
		return last
	}
	eventually(t, "the machines", reachable)
	mm3, err := l.HardwareAddr("mm3")
	if err != nil {
		t.Fatal(err)
	}
	synced := "cd /var/lib/appliance && dd if=/dev/zero of=file bs=4k count=1 conv=fsync 2>/dev/null"

	t.Run("a cut ends at its deadline", func(t *testing.T) {
		begin(t, fault.Fault{Kind: fault.Cut, In: []string{mm3}}, 2*time.Second)
		if reachable() == nil {
			t.Error("ms1 is reached")
		}
		eventually(t, "ms1", reachable)
		if e := over(t); e.By != "keeper" || e.Hits == 0 {
			t.Errorf("ended by %s after %d frames", e.By, e.Hits)
		}
	})
	t.Run("total loss is healed on demand", func(t *testing.T) {
		begin(t, fault.Fault{Kind: fault.Loss, Percent: 100}, time.Minute)
		if reachable() == nil {
			t.Error("ms1 is reached")
		}
		if err := l.EndFaults(ctx, "ms1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "ms1", reachable)
		if e := over(t); e.By != "heal" {
			t.Errorf("ended by %s", e.By)
		}
	})
	t.Run("a fault does not outlive its keeper", func(t *testing.T) {
		begin(t, fault.Fault{Kind: fault.Cut, In: []string{mm3}}, time.Minute)
		list, err := l.Faults("ms1")
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if _, err := sh("ms1", fmt.Sprintf("kill -9 %d", list[0].Keeper)); err != nil {
			t.Fatal(err)
		}
		if e := over(t); e.By != "sweep" {
			t.Errorf("ended by %s", e.By)
		}
		eventually(t, "ms1", reachable)
	})
	t.Run("a slow link is slow", func(t *testing.T) {
		begin(t, fault.Fault{Kind: fault.SlowLink, Rate: 20_000}, time.Minute)
		began := time.Now()
		ms1, _ := l.state()
		m, _ := ms1.Cluster.Machine("mm3")
		conn, err := l.Dial(ctx, "ms1", "tcp", m.Address.String()+":7000")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The answer is a refusal that comes when everything was received.
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\nX: %s\r\n\r\n", strings.Repeat("x", 60_000))
		if _, err := conn.Read(make([]byte, 1)); err != nil || time.Since(began) < time.Second {
			t.Errorf("60 kB at 20 kB/s took %s, %v", time.Since(began), err)
		}
		if err := l.EndFaults(ctx, "ms1"); err != nil {
			t.Fatal(err)
		}
		over(t)
	})
	t.Run("a paused service goes on", func(t *testing.T) {
		pid := service("ms1").Pid
		begin(t, fault.Fault{Kind: fault.Pause}, 2*time.Second)
		if state, _ := sh("ms1", fmt.Sprintf("cut -d' ' -f3 /proc/%d/stat", pid)); state != "T" {
			t.Errorf("its state is %s", state)
		}
		over(t)
		if state, _ := sh("ms1", fmt.Sprintf("cut -d' ' -f3 /proc/%d/stat", pid)); state == "T" || service("ms1").Pid != pid {
			t.Errorf("afterwards its state is %q", state)
		}
	})
	t.Run("a killed service stays down until the deadline", func(t *testing.T) {
		pid := service("ms1").Pid
		begin(t, fault.Fault{Kind: fault.Kill}, 3*time.Second)
		if e := over(t); e.Hits < 2 {
			t.Errorf("it was killed %d times", e.Hits)
		}
		eventually(t, "the service", func() error {
			if now := service("ms1").Pid; now == pid || now == 0 {
				return fmt.Errorf("pid %d", now)
			}
			return reachable()
		})
	})
	t.Run("disks lie", func(t *testing.T) {
		if _, err := sh("ms1", synced); err != nil {
			t.Fatal(err)
		}
		begin(t, fault.Fault{Kind: fault.SlowDisk, Delay: 500 * time.Millisecond}, time.Minute)
		began := time.Now()
		if _, err := sh("ms1", synced); err != nil || time.Since(began) < 500*time.Millisecond {
			t.Errorf("a slow disk took %s, %v", time.Since(began), err)
		}
		begin(t, fault.Fault{Kind: fault.FullDisk}, time.Minute)
		if _, err := sh("ms1", synced); err == nil {
			t.Error("a full disk takes data")
		}
		if err := l.EndFaults(ctx, "ms1"); err != nil {
			t.Fatal(err)
		}
		over(t)
		begin(t, fault.Fault{Kind: fault.HungDisk}, 2*time.Second)
		began = time.Now()
		if _, err := sh("ms1", synced); err != nil || time.Since(began) < time.Second {
			t.Errorf("a hung disk took %s, %v", time.Since(began), err)
		}
		over(t)
	})
	t.Run("another address is taken back", func(t *testing.T) {
		s, err := l.state()
		if err != nil {
			t.Fatal(err)
		}
		own, _ := s.Cluster.Machine("ms1")
		bits := s.Cluster.Network.Bits()
		other := s.Cluster.Host
		for range 60 { // nobody is that far from the host
			other = other.Next()
		}
		move := fault.Fault{Kind: fault.Address, Move: &fault.Move{From: netip.PrefixFrom(own.Address, bits), To: netip.PrefixFrom(other, bits), Router: s.Cluster.Host}}
		has := func(want string) error {
			if got, err := l.Addresses("ms1"); err != nil || !slices.Equal(got, []string{want}) {
				return fmt.Errorf("the addresses are %v, %v; want %s", got, err, want)
			}
			return nil
		}
		begin(t, move, 2*time.Second)
		if err := has(other.String()); err != nil {
			t.Error(err)
		}
		if err := l.Readdress("ms1", other.Next()); err == nil {
			t.Error("it got a third address for good")
		}
		over(t)
		eventually(t, "its own address", func() error { return has(own.Address.String()) })
		eventually(t, "ms1", reachable)

		begin(t, move, time.Minute)
		list, err := l.Faults("ms1")
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if _, err := sh("ms1", fmt.Sprintf("kill -9 %d", list[0].Keeper)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its own address without the keeper", func() error { return has(own.Address.String()) })

		begin(t, move, time.Minute)
		if err := l.PowerOffFor(ctx, "ms1", time.Now()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its own address after a loss of power", func() error { return has(own.Address.String()) })
		eventually(t, "ms1", reachable)
	})
	t.Run("a service that does not show its wrong clock had none", func(t *testing.T) {
		begin(t, fault.Fault{Kind: fault.Clock, Offset: time.Hour}, 2*time.Second)
		if e := over(t); e.Hits != 0 || e.By != "keeper" {
			t.Errorf("%d hits, ended by %s", e.Hits, e.By)
		}
	})
	t.Run("power comes back", func(t *testing.T) {
		if err := l.PowerOffFor(ctx, "ms1", time.Now().Add(2*time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := sh("ms1", "true"); err == nil {
			t.Error("it is on")
		}
		eventually(t, "ms1", reachable)
	})
	t.Run("bad input changes nothing", func(t *testing.T) {
		for _, f := range []fault.Fault{{Kind: "meteor"}, {Kind: fault.Loss, Percent: 200}, {Kind: fault.Cut, In: []string{"mm3"}}, {Kind: fault.SlowDisk}, {Kind: fault.Address}} {
			f.ID, f.Length = fault.NewID(), time.Minute
			if err := l.Begin(ctx, "ms1", f); err == nil {
				t.Errorf("%+v was accepted", f)
			}
		}
		if list, err := l.Faults("ms1"); err != nil || len(list) > 0 {
			t.Errorf("in force: %v, %v", list, err)
		}
		eventually(t, "ms1", reachable)
	})
	t.Run("nothing is left", func(t *testing.T) {
		for _, script := range []string{"ls /run/appliance/chaos/*.json", "tc qdisc show dev eth0 | grep tbf", "nft list table netdev appliance_chaos"} {
			if out, err := sh("ms1", script+" 2>/dev/null"); err == nil && out != "" {
				t.Errorf("%s: %s", script, out)
			}
		}
	})
}
