package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Size is what one node's process takes.
type Size struct {
	Of         string        `json:"of,omitempty"` // machine
	At         time.Duration `json:"at_ns"`        // since the run began
	Memory     int64         `json:"memory_bytes"` // RssAnon and RssShmem: what the process has made
	Mapped     int64         `json:"mapped_bytes"` // RssFile: pages of the program and of files, which the kernel takes back when it likes
	Heap       int64         `json:"heap_bytes"`   // in use after a collection
	Goroutines int           `json:"goroutines"`
	Files      int           `json:"files"`
	Pid        int           `json:"pid"`
	Age        time.Duration `json:"age_ns"`
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
		for range 2 { // a pool keeps what it holds over one collection (sync.Pool)
			_, _, _ = n.do(ctx, "GET", "/debug/pprof/free", "") // older nodes cannot
		}
		made, mapped := rss(proc)
		profile, _, _ := n.do(ctx, "GET", "/debug/pprof/heap?gc=1&debug=1", "")
		s := Size{Of: m.Name, At: time.Since(r.began), Memory: made, Mapped: mapped, Heap: heap(string(profile)), Pid: m.Service.Pid, Age: time.Since(m.Service.Since)}
		if text, _, err := n.do(ctx, "GET", "/debug/pprof/goroutine?debug=1", ""); err == nil {
			_, _ = fmt.Sscanf(string(text), "goroutine profile: total %d", &s.Goroutines)
		}
		cancel()
		n.http.CloseIdleConnections()
		files, _ := os.ReadDir(filepath.Join(proc, "fd"))
		s.Files = len(files)
		if s.Memory > 0 && s.Goroutines > 0 {
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

// rss reads the resident memory in bytes from /proc/PID/status (proc(5)).
func rss(proc string) (made, mapped int64) {
	text, _ := os.ReadFile(filepath.Join(proc, "status"))
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		var kib int64
		switch _, _ = fmt.Sscan(rest, &kib); name {
		case "RssAnon", "RssShmem":
			made += kib << 10
		case "RssFile":
			mapped = kib << 10
		}
	}
	return made, mapped
}

const (
	// fillWrites is more than the audit log keeps (50,000) and than proposals are
	// remembered (65,536).
	fillWrites = 70_000
	// fillEvents is more than the history keeps (5,000).
	fillEvents = 5_500
)

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
				path := fmt.Sprintf("/v1/kv/chaos/fill/%013d", c) // as long as the keys that follow: the audit log keeps them
				if i < fillEvents/clients+1 {
					path = "/v1/event/fire/chaos"
				}
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
