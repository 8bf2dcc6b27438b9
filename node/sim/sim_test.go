package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var oneSeed = flag.Uint64("seed", 0, "run this seed alone")

const defaultSeeds = 3

func TestSeeds(t *testing.T) {
	first, count := uint64(1), uint64(defaultSeeds)
	if text := os.Getenv("SIM_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal("SIM_SEEDS:", err)
		}
		count = n
	}
	if text := os.Getenv("SIM_FIRST"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal("SIM_FIRST:", err)
		}
		first = n
	}
	if *oneSeed != 0 {
		first, count = *oneSeed, 1
	}
	all := &batch{did: map[effect]int{}}
	t.Cleanup(func() { all.judge(t) }) // when all seeds have run
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			simulate(t, seed, all)
		})
	}
}

// repeats is how often a seed that failed is run again, to tell how surely that comes back.
const repeats = 3

func simulate(t *testing.T, seed uint64, all *batch) {
	begin := time.Now()
	h, r := once(t, seed)
	all.add(h, r)
	had := ""
	for _, x := range h.extent() {
		had += fmt.Sprintf("%d %s, ", x.got, x.what)
	}
	t.Logf("%sa death noticed after %v, %.1f s", had, h.noticed, time.Since(begin).Seconds())
	if len(r.Errors) == 0 {
		return
	}
	again := 0
	for range repeats {
		if _, r := once(t, seed); len(r.Errors) > 0 {
			again++
		}
	}
	t.Errorf("%s\n\n%s\n\nreproduce: go test ./node/sim -run TestSeeds -seed=%d -count=20 -failfast (%d of %d more runs failed: a seed decides faults and workload, not how goroutines are scheduled)",
		strings.Join(r.Trace, "\n"), strings.Join(r.Errors, "\n"), seed, again, repeats)
}

// once runs a seed and judges it.
func once(t *testing.T, seed uint64) (h *history, r *report) {
	dir := scratch(t)
	leak := bubble(t, func() { h, r = run(seed, dir) })
	r.Errors = h.judge() // in real time
	if leak != nil && !r.Hung {
		r.Errors = append(r.Errors, fmt.Sprint(leak))
	}
	return h, r
}

// bubble runs f in a bubble and returns what its end panics with if goroutines are left. hashicorp/raft
// never answers proposals that wait when it stops, so a process that ends with a hung disk leaves some.
func bubble(t *testing.T, f func()) (leak any) {
	done := false
	defer func() {
		if leak = recover(); leak != nil && !done {
			panic(leak)
		}
		if leak != nil && os.Getenv("SIM_STACKS") != "" {
			b := make([]byte, 1<<20)
			fmt.Fprintf(os.Stderr, "%s\n", b[:runtime.Stack(b, true)])
		}
	}()
	synctest.Test(t, func(*testing.T) {
		f()
		done = true
	})
	return nil
}

// scratch is a directory in memory if there is one: files of agents are written through.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
