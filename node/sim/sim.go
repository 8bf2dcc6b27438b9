package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// report is what a run was.
type report struct {
	Errors []string // what is wrong; empty if all is well
	Hung   bool     // a process has ended because of its disk
	Trace  []string
}

const (
	duration = 40 * time.Second // of trouble
	longest  = 3 * duration     // if the run would mean little otherwise
	healing  = 30 * time.Second // until every node takes writes again and everything is at target
	maxTime  = 10 * time.Minute
)

// epoch is when a bubble's clock starts.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(t time.Time) time.Duration { return t.Sub(epoch) }

// trace is the story of a run; it keeps the last lines.
type trace struct {
	mu    sync.Mutex
	lines []string
}

const traceLines = 400

func (t *trace) add(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf("%12v %s", at(time.Now()), strings.TrimSpace(text)))
	t.lines = t.lines[max(0, len(t.lines)-traceLines):]
}

// all returns the lines so far: a goroutine of the clock may still write one.
func (t *trace) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines)
}

func (t *trace) Write(b []byte) (int, error) { t.add(string(b)); return len(b), nil }

// run lives through one seed. It must be called inside a bubble of testing/synctest; dir is for the files
// of followers. The history is not judged yet: its judge does that, outside.
func run(seed uint64, dir string) (*history, *report) {
	tr, h := &trace{}, newHistory()
	log := slog.New(slog.NewTextHandler(tr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	c := newCluster(seed, dir, log, tr.add, h.fail)
	runaway := time.AfterFunc(maxTime, func() { panic(fmt.Sprintf("seed %d does not end\n%s", seed, strings.Join(tr.all(), "\n"))) })
	defer runaway.Stop()
	if err := c.up(); err != nil {
		h.fail("%v", err)
	} else {
		live(c, h, rand.New(rand.NewPCG(seed, 4)))
	}
	c.stop()
	h.panics = int(c.panics.Load())
	h.count(c)
	return h, &report{Hung: c.hung.Load(), Trace: tr.all()}
}

func live(c *cluster, h *history, r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	err := setUp(ctx, c)
	cancel()
	if err != nil {
		h.fail("%v", err)
		return
	}
	ctx, cancel = context.WithTimeout(context.Background(), longest)
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		cl := &client{name: fmt.Sprintf("c%d", i), id: i, rand: rand.New(rand.NewPCG(r.Uint64(), 5)), cluster: c, history: h, seen: map[string]model.KV{}, until: map[string]time.Time{}}
		wg.Go(func() { cl.run(ctx) })
	}
	wg.Go(func() { watch(ctx, c, h) })
	wg.Go(func() {
		defer cancel()
		for long := duration; pause(ctx, long) == nil && !h.enough(c); long = time.Second {
		}
	})
	trouble(ctx, c, h, r)
	wg.Wait()
	h.did = c.effects()
	c.fault("heal")
	c.heal()
	healed := time.Now()
	if !recovered(c, h) || !settled(c, h, healed) || !placed(c, h, healed) || !company(c, h, healed) {
		return
	}
	same(c, h)
	last := &client{name: "last", id: clients, rand: r, cluster: c, history: h, seen: map[string]model.KV{}}
	for _, m := range c.machines {
		for k := range keys {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if p := m.running(); p != nil {
				last.get(ctx, p, fmt.Sprintf("k%d", k))
			}
			cancel()
		}
	}
}

// watch looks at what every node sees, all the time.
func watch(ctx context.Context, c *cluster, h *history) {
	for pause(ctx, 200*time.Millisecond) == nil {
		for _, m := range c.machines {
			if p := m.running(); p != nil {
				h.inspect(m.name, p.store.Snapshot())
			}
		}
	}
}

// recovered checks that every node takes a write soon after all trouble has ended.
func recovered(c *cluster, h *history) bool {
	ctx, cancel := context.WithTimeout(context.Background(), healing)
	defer cancel()
	for _, m := range c.machines {
		for {
			var err error = context.DeadlineExceeded
			if p := m.running(); p != nil {
				once, done := context.WithTimeout(ctx, 5*time.Second)
				_, err = propose(once, p.core, &command.RecordEvent{Event: model.Event{Kind: "sim", Text: c.newID()}}) // each attempt is a change of its own
				done()
			}
			if err == nil {
				break
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				h.fail("%s takes no writes %v after all trouble has ended: %v", m.name, healing, err)
				return false
			}
		}
	}
	return true
}

// settled checks that everything is at target soon after all trouble has ended.
func settled(c *cluster, h *history, healed time.Time) bool {
	ctx, cancel := context.WithDeadline(context.Background(), healed.Add(healing))
	defer cancel()
	why := ""
	for ctx.Err() == nil {
		c.makeRoom(ctx) // again: what was proposed before may be committed late
		try, done := context.WithTimeout(ctx, 5*time.Second)
		why = c.converge(try)
		if done(); why == "" {
			return true
		}
	}
	if why != "" {
		h.fail("not at target %v after all trouble has ended: %s%s", healing, why, c.health())
		return false
	}
	return true
}

// same checks that all nodes come to rest in the same state, memory of proposals included.
func same(c *cluster, h *history) {
	const patience = 15 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var at []uint64
	for pause(ctx, 100*time.Millisecond) == nil {
		at = nil
		var views [][]byte
		for _, m := range c.machines {
			p := m.running()
			if p == nil {
				continue
			}
			h.inspect(m.name, p.store.Snapshot())
			snap, err := p.replica.Snapshot()
			if err != nil {
				h.fail("%s: %v", m.name, err)
				return
			}
			var b bytes.Buffer
			snap.WriteTo(&b)
			snap.Release()
			at, views = append(at, snap.Index), append(views, b.Bytes())
		}
		if len(at) < len(c.machines) || slices.Min(at) != slices.Max(at) {
			continue
		}
		for i, v := range views[1:] {
			if !bytes.Equal(v, views[0]) {
				h.fail("%s and %s differ at index %d: %s", c.machines[0].name, c.machines[i+1].name, at[0], difference(views[0], v))
			}
		}
		return
	}
	h.fail("nodes are at %v %v after all trouble has ended%s", at, patience, c.health())
}

// health tells how the masters are.
func (c *cluster) health() (text string) {
	for _, m := range c.masters() {
		if p := m.running(); p != nil {
			text += fmt.Sprintf("\n\t%s: %+v", m.name, p.node.Stats())
		}
	}
	return text
}

// difference shows where two snapshots part.
func difference(a, b []byte) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	show := func(x []byte) []byte { return x[max(0, i-80):min(len(x), i+80)] }
	return fmt.Sprintf("at byte %d of %d and %d: %q, %q", i, len(a), len(b), show(a), show(b))
}
