package sched

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"appliance/node/model"
	"appliance/sched/deploy"
)

// refusals says for every node why it does not take one more task.
func (m *matcher) refusals() []model.Refusal {
	out := make([]model.Refusal, 0, len(m.offers))
	for i := range m.offers {
		if r := m.refuse(&m.offers[i]); r.Code != "" {
			out = append(out, r)
		}
	}
	return out
}

// refuse is the first cause in the order of belonging, rules, amounts, ports;
// so a later cause means a node that is closer to taking the task. A zero
// Code means that it takes it.
func (m *matcher) refuse(o *Offer) model.Refusal {
	no := func(code model.RefusalCode, format string, args ...any) model.Refusal {
		return model.Refusal{Node: o.Node.ID, Code: code, Detail: fmt.Sprintf(format, args...)}
	}
	n, want := o.Node, m.Task.Resources
	switch {
	case m.Env == nil:
		return no(model.RefusedEnvironment, "environment %s does not exist", m.App.Env)
	case !m.Env.Selects(n):
		return no(model.RefusedEnvironment, "environment %s wants %s, the node has %s", m.Env.Name, pairs(m.Env.Selector, nil), pairs(m.Env.Selector, n.Attributes))
	case n.Status != model.NodeReady:
		return no(model.RefusedStatus, "the node is %s", n.Status)
	case n.Drain:
		return no(model.RefusedStatus, "the node is draining")
	}
	for _, r := range m.rules {
		if !r.admits(n) {
			return no(model.RefusedConstraint, "%s", r.why(n))
		}
	}
	switch {
	case len(m.Volumes) > 0:
		return no(model.RefusedVolume, "volume %s is not ready", strings.Join(m.Volumes, ", "))
	case short(want.CPUs, o.Free.CPUs):
		return no(model.RefusedCPUs, "wants %s cpus, %s free", amount(want.CPUs), amount(o.Free.CPUs))
	case short(want.Memory, o.Free.Memory):
		return no(model.RefusedMemory, "wants %s MiB memory, %s free", amount(want.Memory), amount(o.Free.Memory))
	case short(want.Disk, o.Free.Disk):
		return no(model.RefusedDisk, "wants %s MiB disk, %s free", amount(want.Disk), amount(o.Free.Disk))
	case short(want.GPUs, o.Free.GPUs):
		return no(model.RefusedGPUs, "wants %s gpus, %s free", amount(want.GPUs), amount(o.Free.GPUs))
	}
	if _, why := choosePorts(o, m.Spec, m.Task.ID); why != "" {
		return no(model.RefusedPorts, "%s", why)
	}
	if deploy.Waits(m.App, m.now) {
		return no(model.RefusedBackoff, "%d tasks failed in a row, next try at %s", m.App.Failures, m.App.RetryAt.UTC().Format("15:04:05Z"))
	}
	return model.Refusal{}
}

// short compares as Resources.Fits does.
func short(want, free float64) bool {
	return !model.Resources{CPUs: want}.Fits(model.Resources{CPUs: free})
}

// amount prints at most three decimals; a negative rest counts as none.
func amount(x float64) string {
	s := strconv.FormatFloat(max(x, 0), 'f', 3, 64)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// pairs prints the selector's keys with their own values, or with those of
// have.
func pairs(selector, have map[string]string) string {
	keys := make([]string, 0, len(selector))
	for k := range selector {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		v, ok := selector[k], true
		if have != nil {
			v, ok = have[k]
		}
		if keys[i] = k + "=" + v; !ok {
			keys[i] = "no " + k
		}
	}
	if have != nil && len(keys) == 0 {
		return "none"
	}
	return strings.Join(keys, ",")
}

// waiting sums up the tasks of one release that found no place.
func waiting(rest []Pending, refusals []model.Refusal) model.Waiting {
	w := model.Waiting{App: rest[0].Task.App, Since: rest[0].Task.CreatedAt, Tasks: len(rest), Refusals: sample(refusals)}
	for _, p := range rest {
		if p.Task.CreatedAt.Before(w.Since) {
			w.Since = p.Task.CreatedAt
		}
	}
	return w
}

// sample keeps at most MaxRefusals, some of every code.
func sample(all []model.Refusal) []model.Refusal {
	if len(all) <= MaxRefusals {
		return all
	}
	byCode := map[model.RefusalCode]int{}
	for _, r := range all {
		byCode[r.Code]++
	}
	each := MaxRefusals / len(byCode)
	kept := map[model.RefusalCode]int{}
	out := make([]model.Refusal, 0, MaxRefusals)
	for _, r := range all {
		if kept[r.Code] < each {
			kept[r.Code]++
			out = append(out, r)
		}
	}
	return out
}

// mergeWaiting leaves one record per app: two releases of it may wait at once
// during a rolling deployment. The newer release's refusals tell more.
func mergeWaiting(all []model.Waiting) []model.Waiting {
	var out []model.Waiting
	at := map[string]int{}
	for _, w := range all {
		i, seen := at[w.App]
		if !seen {
			at[w.App] = len(out)
			out = append(out, w)
			continue
		}
		w.Tasks += out[i].Tasks
		if out[i].Since.Before(w.Since) {
			w.Since = out[i].Since
		}
		out[i] = w
	}
	return out
}
