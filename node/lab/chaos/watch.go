package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/lab"
	"appliance/node/model"
	"appliance/vagrant"
)

// The invariants that are looked at all the time, beside those of the clients.
const (
	ownerRule     = "one owner per task"
	containerRule = "no two containers of one task"
	commitRule    = "no over-commit"
	vipRule       = "never two holders of the VIP that answer"
	auditRule     = "the audit chain verifies"
	targetRule    = "everything at target within 60 s of the heal"
	sameRule      = "all nodes answer the same at the end"
	hashRule      = "all nodes have the same state at one index after each scenario"
	alarmRule     = "the cluster's own comparisons find no other state"
)

// watch checks what the machines say and do.
type watch struct {
	lab     *lab.Lab
	cluster vagrant.Cluster
	nodes   []*node
	wrong   *verdicts

	mu     sync.Mutex
	owners map[string]string // task -> node
	told   uint64            // the last event that was an alarm

	doubles map[string]*double // of the goroutine that looks at holders
}

// lookEach bounds one look at one machine: a sick one says nothing.
const lookEach = time.Second

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) {
	var group sync.WaitGroup
	every := func(d time.Duration, fn func(ctx context.Context)) {
		group.Go(func() {
			for ctx.Err() == nil {
				fn(ctx)
				pause(ctx, d)
			}
		})
	}
	every(time.Second, w.states)
	every(250*time.Millisecond, w.holders)
	every(2*time.Second, w.containers)
	every(7*time.Second, func(ctx context.Context) { w.audit(ctx, auditTail) })
	every(5*time.Second, w.alarms)
	group.Wait()
}

// states asks every node what it believes. An old belief is fine, a wrong one
// is not.
func (w *watch) states(ctx context.Context) {
	for _, n := range w.nodes {
		ctx, cancel := context.WithTimeout(ctx, lookEach)
		st, err := n.status(ctx)
		var tasks []api.TaskView
		if err == nil {
			tasks, err = get[[]api.TaskView](ctx, n, api.Prefix+"/tasks?stale")
		}
		cancel()
		if err == nil {
			w.inspect(n.name, st, tasks)
		}
	}
}

func (w *watch) inspect(at string, st api.Status, tasks []api.TaskView) {
	for _, v := range st.Nodes {
		w.wrong.check(commitRule, 1)
		if !v.Used.Fits(v.Capacity) && v.Capacity != (model.Resources{}) {
			w.wrong.violate(commitRule, "%s says that %v of %v are used on %s", at, v.Used, v.Capacity, v.Name)
		}
	}
	ports := map[string]string{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tasks {
		if t.Node == "" {
			continue
		}
		w.wrong.check(ownerRule, 1)
		if old := w.owners[t.ID]; old != "" && old != t.Node {
			w.wrong.violate(ownerRule, "%s says that task %s is on %s; it was on %s", at, t.ID, t.Node, old)
		}
		w.owners[t.ID] = t.Node
		if !t.Live() {
			continue
		}
		for _, p := range t.Ports {
			key := fmt.Sprintf("%s port %d", t.Node, p)
			if other := ports[key]; other != "" && other != t.ID {
				w.wrong.violate(commitRule, "%s says that %s is of %s and of %s", at, key, other, t.ID)
			}
			ports[key] = t.ID
		}
	}
}

// safeName is a task's id as it stands in the name of its container.
func safeName(id string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, id)
}

// containers looks at the processes themselves.
func (w *watch) containers(context.Context) {
	w.mu.Lock()
	known := map[string]string{}
	for id := range w.owners {
		known[safeName(id)] = id
	}
	w.mu.Unlock()
	where := map[string]string{}
	for _, m := range w.cluster.Machines {
		list, err := w.lab.Containers(m.Name)
		if err != nil {
			continue
		}
		for name := range list {
			id := known[name[:max(strings.LastIndexByte(name, '-'), 0)]] // a hash follows
			if id == "" {
				continue
			}
			w.wrong.check(containerRule, 1)
			if other := where[id]; other != "" {
				w.wrong.violate(containerRule, "task %s has two containers that run, on %s and on %s", id, other, m.Name)
			}
			where[id] = m.Name
		}
	}
}

// auditTail is how much of the log is verified while there is work to do.
const auditTail = 500

// audit verifies the newest records; 0 is all.
func (w *watch) audit(ctx context.Context, newest int) {
	for _, n := range w.nodes {
		ctx, cancel := context.WithTimeout(ctx, 10*lookEach)
		log, err := get[api.AuditLog](ctx, n, fmt.Sprintf("%s/audit?stale&limit=%d", api.Prefix, newest))
		cancel()
		if err != nil {
			continue
		}
		w.wrong.check(auditRule, len(log.Records))
		if newest > 0 {
			log.Bound = newest // it was cut on purpose
		}
		if bad := model.VerifyAudit(log.Records, log.Bound); bad != nil {
			w.wrong.violate(auditRule, "%s: record %d: %s", n.name, bad.Seq, bad.Why)
		}
		return
	}
}

// settled says what is missing until everything is at its target, on every
// node's word.
func (w *watch) settled(ctx context.Context) error {
	leader := ""
	for _, n := range w.nodes {
		st, err := n.status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if !st.Fresh || st.Leader == "" || leader != "" && st.Leader != leader {
			return fmt.Errorf("%s: fresh %v, leader %q, and %q elsewhere", n.name, st.Fresh, st.Leader, leader)
		}
		leader = st.Leader
		ready := 0
		for _, v := range st.Nodes {
			if v.Status == model.NodeReady && v.Alive && !v.Drain {
				ready++
			}
		}
		if ready != len(w.nodes) || len(st.Nodes) != ready {
			return fmt.Errorf("%s sees %d of %d nodes ready", n.name, ready, len(st.Nodes))
		}
		for _, a := range st.Apps {
			if a.Ready != a.Instances || a.Running != a.Instances || a.Deploying != nil {
				return fmt.Errorf("%s sees %d of %d instances of %s ready, %d running", n.name, a.Ready, a.Instances, a.ID, a.Running)
			}
		}
	}
	return nil
}
