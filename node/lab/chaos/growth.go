package chaos

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Size is what one node's process takes.
type Size struct {
	RSS        int64         `json:"rss_bytes"`
	Heap       int64         `json:"heap_bytes"` // in use after a collection
	Goroutines int           `json:"goroutines"`
	Files      int           `json:"files"`
	Pid        int           `json:"pid"`
	Age        time.Duration `json:"age_ns"`
}

// Growth compares one machine's process after the warm-up and at the end. A
// process that was restarted meanwhile is compared with its earlier selves.
type Growth struct {
	Machine  string  `json:"machine"`
	First    Size    `json:"first"` // medians
	Last     Size    `json:"last"`
	Restarts int     `json:"restarts"`
	RSS      float64 `json:"rss_growth_percent"`
}

// measure takes the sizes after unused memory was given back to the system:
// how much of that is there by chance is nobody's growth.
func (r *run) measure(ctx context.Context) map[string]Size {
	st, err := r.lab.Status(ctx)
	if err != nil {
		return nil
	}
	sizes := map[string]Size{}
	for _, m := range st.Machines {
		if m.Service == nil || m.Service.Pid == 0 {
			continue
		}
		proc, err := r.lab.Proc(m.Name, m.Service.Pid)
		if err != nil {
			continue
		}
		n := newNode(r.lab, m.Name)
		ctx, cancel := context.WithTimeout(ctx, pageTime)
		_, _, _ = n.do(ctx, "GET", "/debug/pprof/free", "") // older nodes cannot
		profile, _, _ := n.do(ctx, "GET", "/debug/pprof/heap?gc=1&debug=1", "")
		s := Size{RSS: rss(proc), Heap: heap(string(profile)), Pid: m.Service.Pid, Age: time.Since(m.Service.Since)}
		if text, _, err := n.do(ctx, "GET", "/debug/pprof/goroutine?debug=1", ""); err == nil {
			_, _ = fmt.Sscanf(string(text), "goroutine profile: total %d", &s.Goroutines)
		}
		cancel()
		n.http.CloseIdleConnections()
		files, _ := os.ReadDir(filepath.Join(proc, "fd"))
		s.Files = len(files)
		if s.RSS > 0 && s.Goroutines > 0 {
			sizes[m.Name] = s
		}
	}
	return sizes
}

// heap finds the memory in use in a profile's text.
func heap(profile string) (n int64) {
	if _, rest, ok := strings.Cut(profile, "\n# HeapAlloc = "); ok {
		_, _ = fmt.Sscan(rest, &n)
	}
	return n
}

// rss reads the resident memory from /proc/PID/status (proc(5)).
func rss(proc string) int64 {
	f, err := os.Open(filepath.Join(proc, "status"))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// fillWrites is more than the audit log keeps (50,000) and than proposals are
// remembered (65,536).
const fillWrites = 70_000

// fill writes until the tables of the state that keep a history are full, so
// that what grows afterwards grows without a limit.
func (r *run) fill(ctx context.Context) error {
	if r.o.For < growthTime {
		return nil
	}
	r.say("filling the tables that keep a history (%d writes)", fillWrites)
	group, ctx := errgroup.WithContext(ctx)
	const clients = 48
	for c := range clients {
		group.Go(func() error {
			for i := range fillWrites/clients + 1 {
				path := fmt.Sprintf("/v1/kv/chaos/fill/%d", c)
				if err := again(ctx, settleTime, func(ctx context.Context) error {
					_, _, err := r.load.nodes[(c+i)%len(r.load.nodes)].do(ctx, "PUT", path, "x")
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

const (
	// growthTime is the least run whose growth is judged: before, everything
	// still fills its buffers.
	growthTime = 15 * time.Minute
	// settledAge is the least age of a process whose size counts.
	settledAge = 10 * time.Second
	maxGrowth  = 5 // percent of the resident memory
	// slack of goroutines and files: connections come and go.
	slack = 40
)

// growth compares the sizes in the second fifth of the run with those in the
// last one, each by their medians.
func (r *run) growth() {
	n := len(r.sizes)
	if n < 2 {
		return
	}
	first, last := r.sizes[n/5:max(2*n/5, n/5+1)], r.sizes[min(4*n/5, n-1):]
	for _, m := range r.cluster.Machines {
		g := Growth{Machine: m.Name, First: median(first, m.Name), Last: median(last, m.Name)}
		pid := 0
		for _, s := range r.sizes {
			if s[m.Name].Pid != 0 && pid != 0 && s[m.Name].Pid != pid {
				g.Restarts++
			}
			if s[m.Name].Pid != 0 {
				pid = s[m.Name].Pid
			}
		}
		if g.First.RSS == 0 || g.Last.RSS == 0 {
			continue
		}
		g.RSS = 100 * (float64(g.Last.RSS)/float64(g.First.RSS) - 1)
		r.report.Growth = append(r.report.Growth, g)
		if r.report.Took < growthTime {
			continue
		}
		if g.RSS > maxGrowth {
			r.report.Grown = append(r.report.Grown, fmt.Sprintf("the memory of %s grew by %.1f %%", m.Name, g.RSS))
		}
		if g.Last.Goroutines > g.First.Goroutines+slack || g.Last.Files > g.First.Files+slack {
			r.report.Grown = append(r.report.Grown, fmt.Sprintf("%s went from %d goroutines and %d files to %d and %d", m.Name,
				g.First.Goroutines, g.First.Files, g.Last.Goroutines, g.Last.Files))
		}
	}
}

func median(list []map[string]Size, machine string) (out Size) {
	var rss, heap, goroutines, files []int64
	for _, s := range list {
		if one, ok := s[machine]; ok && one.Age >= settledAge {
			rss, heap = append(rss, one.RSS), append(heap, one.Heap)
			goroutines, files = append(goroutines, int64(one.Goroutines)), append(files, int64(one.Files))
		}
	}
	middle := func(l []int64) int64 {
		if len(l) == 0 {
			return 0
		}
		slices.Sort(l)
		return l[len(l)/2]
	}
	return Size{RSS: middle(rss), Heap: middle(heap), Goroutines: int(middle(goroutines)), Files: int(middle(files))}
}
