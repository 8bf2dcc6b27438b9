package priority

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"
)

// The child's threads are those of an ordinary program: a test binary with the race detector has others first.
const child = "PRIORITY_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "calm":
		fmt.Println(each(calm.set), CalmMonitor(), slacks())
	case "which":
		for end := time.Now().Add(time.Second / 4); time.Now().Before(end); {
		}
		tid, err := monitor()
		fmt.Println(err, tid == mostAwake())
	case "normal":
		fmt.Println(each(calm.set), Normal(), slacks())
	default:
		os.Exit(m.Run())
	}
}

// slacks is what the threads have, sorted, each value once.
func slacks() string {
	var all []string
	each(func(tid int) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
		all = append(all, strings.TrimSpace(string(b)))
		return err
	})
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// mostAwake is the thread that has gone to sleep most often.
func mostAwake() (tid int) {
	most := 0
	each(func(id int) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", id))
		_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
		n := 0
		fmt.Sscan(rest, &n)
		if n > most {
			tid, most = id, n
		}
		return err
	})
	return tid
}

func TestMonitorIsCalmed(t *testing.T) {
	needs.Root(t)
	for _, c := range [][2]string{{"which", "<nil> true"}, {"calm", "<nil> <nil> 1000000 50000"}, {"normal", "<nil> <nil> 50000"}} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+c[0])
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c[1] {
			t.Errorf("%s: %q, %v; want %q", c[0], got, err, c[1])
		}
	}
}
