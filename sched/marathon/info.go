package marathon

import (
	"net/http"
	"strings"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/sched"
)

func (c *call) ping() error {
	if strings.Contains(c.r.Header.Get("Accept"), "application/json") {
		return c.reply(http.StatusOK, "pong")
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := c.w.Write([]byte("pong"))
	return ignore(err)
}

func (c *call) info() error {
	out := map[string]any{
		"name": "marathon", "version": Version, "buildref": "", "elected": true, "leader": nil, "frameworkId": "appliance",
		"marathon_config": map[string]any{}, "zookeeper_config": map[string]any{}, "event_subscriber": nil,
		"http_config": map[string]any{"http_port": 8080, "https_port": 8443},
	}
	if c.Leader != nil && c.Leader() != "" {
		out["leader"] = c.Leader()
	}
	for cl := range state.Clusters.All(c.snap) {
		out["frameworkId"] = cl.ID
	}
	return c.reply(http.StatusOK, out)
}

func (c *call) leader() error {
	if c.Leader == nil || c.Leader() == "" {
		return notFound("There is no leader")
	}
	return c.reply(http.StatusOK, map[string]string{"leader": c.Leader()})
}

// metrics gives the few gauges that probes look at.
func (c *call) metrics() error {
	var staged, running, healthy int
	for t := range state.Tasks.All(c.snap) {
		switch {
		case t.Framework != "" || !t.Live():
		case t.Status.State == model.TaskRunning:
			running++
			if t.Ready(false) {
				healthy++
			}
		default:
			staged++
		}
	}
	deployments := 0
	for range state.Deployments.By(c.snap, "running", "yes") {
		deployments++
	}
	gauge := func(n int) map[string]int { return map[string]int{"value": n} }
	return c.reply(http.StatusOK, map[string]any{"version": "3.0.0", "counters": map[string]any{}, "gauges": map[string]any{
		"service.mesosphere.marathon.app.count":           gauge(state.Apps.Count(c.snap)),
		"service.mesosphere.marathon.deployment.count":    gauge(deployments),
		"service.mesosphere.marathon.task.staged.count":   gauge(staged),
		"service.mesosphere.marathon.task.running.count":  gauge(running),
		"service.mesosphere.marathon.task.healthy.count":  gauge(healthy),
		"service.mesosphere.marathon.leadership.duration": gauge(0),
	}})
}

// queue serves /v2/queue: apps with tasks that have no place, and why.
func (c *call) queue(rest string) error {
	if id, ok := strings.CutSuffix(rest, "/delay"); ok && c.r.Method == http.MethodDelete {
		return c.endDelay(c.resolve(id))
	}
	return c.get(func() error {
		pending := map[string]int{}
		for _, p := range sched.Queue(c.snap) {
			pending[p.Task.App]++
		}
		out := []any{}
		for _, id := range sortedKeys(pending) {
			a := state.Apps.Get(c.snap, id)
			if a == nil || c.release(a) == nil {
				continue
			}
			left := max(a.RetryAt.Sub(c.now).Seconds(), 0)
			item := map[string]any{
				"count": pending[id], "delay": map[string]any{"timeLeftSeconds": int(left), "overdue": left == 0},
				"since": stamp(a.UpdatedAt), "app": c.render(a, c.release(a), false), "role": "*",
			}
			if w := state.Waiting.Get(c.snap, id); w != nil {
				item["since"] = stamp(w.Since)
				item["processedOffersSummary"] = summary(w)
			}
			out = append(out, item)
		}
		return c.reply(http.StatusOK, map[string]any{"queue": out})
	})
}

// reasons are Marathon's names for refusals.
var reasons = map[model.RefusalCode]string{
	model.RefusedCPUs: "InsufficientCpus", model.RefusedMemory: "InsufficientMemory", model.RefusedDisk: "InsufficientDisk",
	model.RefusedGPUs: "InsufficientGpus", model.RefusedPorts: "InsufficientPorts", model.RefusedConstraint: "UnfulfilledConstraint",
	model.RefusedEnvironment: "UnfulfilledRole", model.RefusedStatus: "AgentMaintenance", model.RefusedVolume: "UnfulfilledConstraint",
	model.RefusedBackoff: "DeclinedScarceResources",
}

func summary(w *model.Waiting) map[string]any {
	declined := map[string]int{}
	for _, r := range w.Refusals {
		declined[reasons[r.Code]]++
	}
	rejects := []any{}
	for _, name := range sortedKeys(declined) {
		rejects = append(rejects, map[string]any{"reason": name, "declined": declined[name], "processed": len(w.Refusals)})
	}
	return map[string]any{
		"processedOffersCount": len(w.Refusals), "unusedOffersCount": len(w.Refusals),
		"rejectSummaryLastOffers": rejects, "rejectSummaryLaunchAttempt": rejects,
	}
}
