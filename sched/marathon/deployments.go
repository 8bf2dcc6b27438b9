package marathon

import (
	"net/http"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// deployments serves /v2/deployments and below.
func (c *call) deployments(id string) error {
	if id == "" {
		return c.get(func() error {
			out := []any{}
			for d := range state.Deployments.By(c.snap, "running", "yes") {
				out = append(out, c.deployment(d))
			}
			return c.reply(http.StatusOK, out)
		})
	}
	d := state.Deployments.Get(c.snap, id)
	if d == nil || d.State != model.DeploymentRunning {
		return notFound("DeploymentPlan %s does not exist", id)
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.reply(http.StatusOK, c.deployment(d))
	case http.MethodDelete:
		return c.cancel(d)
	}
	return errMethod
}

// cancel goes back to where the deployment came from; by force it only stops
// to be one.
func (c *call) cancel(d *model.Deployment) error {
	if c.flag("force") {
		_, err := c.propose(&command.EndDeployment{ID: d.ID, State: model.DeploymentCancelled, Why: "it was cancelled through the Marathon API", At: c.now})
		if err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	back := c.newDeployment("revert")
	back.Reverts = d.ID
	var undo command.Command = &command.ScaleApp{App: d.App, Instances: d.FromInstances, Release: d.From, Deployment: back}
	if d.From == 0 {
		undo = &command.DeleteApp{App: d.App, At: c.now}
	}
	if _, err := c.propose(undo); err != nil {
		return err
	}
	return c.replyDeployment(http.StatusOK, back.ID)
}

// action is Marathon's word for what a deployment does.
func action(d *model.Deployment) string {
	switch {
	case d.From == 0:
		return "StartApplication"
	case d.From == d.To || d.Instances == 0:
		return "ScaleApplication"
	}
	return "RestartApplication"
}

func (c *call) deployment(d *model.Deployment) map[string]any {
	id := c.publicApp(d.App)
	step := map[string]any{"action": action(d), "app": id}
	current := map[string]any{"action": action(d), "app": id, "readinessCheckResults": []any{}}
	return map[string]any{
		"id": d.ID, "version": stamp(d.StartedAt), "affectedApps": []string{id}, "affectedPods": []string{},
		"steps": []any{map[string]any{"actions": []any{step}}}, "currentActions": []any{current}, "currentStep": 1, "totalSteps": 1,
	}
}

// publicApp is the id that clients know an app by.
func (c *call) publicApp(id string) string {
	if a := state.Apps.Get(c.snap, id); a != nil {
		if rel := c.release(a); rel != nil {
			return publicID(rel)
		}
	}
	return id
}
