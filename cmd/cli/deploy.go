package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) deployCmd() *cobra.Command {
	var req api.DeployRequest
	var file string
	var instances int
	var detach bool
	cmd := &cobra.Command{
		Use:   "deploy NAME --env ENV",
		Short: "Deploy an app into an environment and wait until it serves",
		Long: `Deploy an app into an environment and wait until it serves.

The spec comes from -f FILE, else from the image itself ("appliance build"
puts it there), else from the app's present release. The exit code is 0 when
the app serves, 2 when no node can take it, 3 when the deployment failed and
the former release is back, 1 for anything else.`,
		Example: `  appliance deploy notejam --env test
  appliance deploy web --env test --image web:2 --instances 4
  appliance deploy -f web.yaml --env test`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				req.App = args[0]
			}
			if file != "" {
				f, err := loadAppFile(file)
				if err != nil {
					return err
				}
				req.Spec = &f.App
				if req.App == "" {
					req.App = f.Name
				}
				if req.Image == "" && f.App.Image == "" {
					req.Image = f.Name
				}
			}
			if cmd.Flags().Changed("instances") {
				req.Instances = &instances
			}
			return a.change(cmd.Context(), "/deploy", &req, detach)
		},
	}
	cmd.Flags().StringVarP(&req.Env, "env", "e", "", "environment, for example test")
	cmd.Flags().StringVar(&req.Image, "image", "", "image reference (default: the app's name in the cluster's registry)")
	cmd.Flags().StringVarP(&file, "file", "f", "", "app file (YAML or JSON)")
	cmd.Flags().IntVarP(&instances, "instances", "n", 0, "number of instances (default: as before, or the spec's)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the outcome")
	return cmd
}

func (a *app) promoteCmd() *cobra.Command {
	var req api.PromoteRequest
	var instances int
	var detach bool
	cmd := &cobra.Command{
		Use:     "promote NAME --from ENV --to ENV",
		Short:   "Deploy in one environment exactly what runs in another",
		Example: "  appliance promote notejam --from test --to production",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.App = args[0]
			if cmd.Flags().Changed("instances") {
				req.Instances = &instances
			}
			return a.change(cmd.Context(), "/promote", &req, detach)
		},
	}
	cmd.Flags().StringVar(&req.From, "from", "", "environment to take the release from")
	cmd.Flags().StringVar(&req.To, "to", "", "environment to put it into")
	cmd.Flags().IntVarP(&instances, "instances", "n", 0, "number of instances (default: as in the source, or as before)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the outcome")
	return cmd
}

func (a *app) scaleCmd() *cobra.Command {
	var req api.ScaleRequest
	var detach bool
	cmd := &cobra.Command{
		Use:     "scale NAME --env ENV COUNT",
		Short:   "Change the number of instances",
		Example: "  appliance scale notejam --env test 6",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.App = args[0]
			var err error
			if req.Instances, err = strconv.Atoi(args[1]); err != nil {
				return model.Errorf(model.CodeInvalid, "%q is not a number of instances", args[1]).Try("for example: appliance scale %s --env test 6", args[0])
			}
			return a.change(cmd.Context(), "/scale", &req, detach)
		},
	}
	cmd.Flags().StringVarP(&req.Env, "env", "e", "", "environment")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the outcome")
	return cmd
}

func (a *app) rollbackCmd() *cobra.Command {
	var req api.RollbackRequest
	var detach bool
	cmd := &cobra.Command{
		Use:     "rollback NAME --env ENV",
		Short:   "Go back to the last good release, or to a given one",
		Example: "  appliance rollback notejam --env production\n  appliance rollback notejam --env production --release 4",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.App = args[0]
			return a.change(cmd.Context(), "/rollback", &req, detach)
		},
	}
	cmd.Flags().StringVarP(&req.Env, "env", "e", "", "environment")
	cmd.Flags().Uint64Var(&req.Release, "release", 0, "release number (default: the last good one before the present)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the outcome")
	return cmd
}

func (a *app) restartCmd() *cobra.Command {
	var req api.RollbackRequest
	var detach bool
	cmd := &cobra.Command{
		Use:     "restart NAME --env ENV",
		Short:   "Replace every instance, a few at a time",
		Example: "  appliance restart notejam --env test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.App = args[0]
			return a.change(cmd.Context(), "/restart", &req, detach)
		},
	}
	cmd.Flags().StringVarP(&req.Env, "env", "e", "", "environment")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the outcome")
	return cmd
}

func (a *app) stopCmd() *cobra.Command {
	var req api.StopRequest
	cmd := &cobra.Command{
		Use:     "stop NAME --env ENV",
		Short:   "Stop an app and forget it; its images and volumes stay",
		Example: "  appliance stop notejam --env test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			req.App = args[0]
			var out api.Accepted
			if err := c.Post(cmd.Context(), "/stop", &req, &out); err != nil {
				return err
			}
			return a.show(out, func(p *ui.Printer) { p.Line("%s is stopping", out.App) })
		},
	}
	cmd.Flags().StringVarP(&req.Env, "env", "e", "", "environment")
	return cmd
}

// change asks for a deployment and follows it to its end.
func (a *app) change(ctx context.Context, path string, req any, detach bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var acc api.Accepted
	if err := c.Post(ctx, path, req, &acc); err != nil {
		return err
	}
	if detach {
		return a.show(acc, func(p *ui.Printer) { p.Line("deployment %s of %s, release %d", acc.Deployment, acc.App, acc.Release) })
	}
	if !a.json {
		fmt.Fprintf(a.errOut, "%s release %d %s\n", acc.App, acc.Release, ui.Short(acc.Digest))
	}
	view := ui.NewProgress(a.errOut)
	var waiting *model.Waiting
	d, err := c.progress(ctx, acc.Deployment, func(p api.Progress) {
		waiting = p.Waiting
		if !a.json {
			view.Update(progressItems(p))
		}
	})
	if errors.Is(err, context.Canceled) {
		return &exitError{code: exitFailed, err: fmt.Errorf("no longer watching; deployment %s goes on (appliance status)", acc.Deployment)}
	}
	if err != nil {
		return err
	}
	if err := a.show(d, func(p *ui.Printer) { printReceipt(p, d) }); err != nil {
		return err
	}
	return outcome(d, waiting)
}

func progressItems(p api.Progress) []ui.Item {
	var items []ui.Item
	for _, t := range p.Tasks {
		items = append(items, ui.Item{Key: t.ID, Text: fmt.Sprintf("  %-32s %-6s %s", t.ID, ui.Or(t.NodeName), taskText(t, p.Deployment))})
	}
	// A moment without a place is normal: a volume is being made, an instance
	// is making room.
	if w := p.Waiting; w != nil && time.Since(w.Since) > time.Second {
		items = append(items, ui.Item{Key: "waiting", Text: "  " + api.NoPlace(w.Tasks) + ": " + refusals(w)})
	}
	return items
}

func taskText(t api.TaskView, d *model.Deployment) string {
	st := t.Status
	switch {
	case st.State.Terminal() && st.State == model.TaskFailed:
		return "failed: " + st.Message
	case st.State.Terminal():
		return "ended"
	case t.Stop:
		return "stopping"
	case st.State == model.TaskRunning && t.Ready && d != nil && t.Release == d.To:
		return "ready"
	case st.State == model.TaskRunning && t.Ready:
		return fmt.Sprintf("ready (release %d)", t.Release)
	case st.State == model.TaskRunning:
		return "running, waiting for its health check"
	case st.State == model.TaskStarting:
		return "pulling and starting"
	case t.Node != "":
		return "placed"
	}
	return "waiting for a place"
}

func printReceipt(p *ui.Printer, d *model.Deployment) {
	took := ui.Age(d.EndedAt.Sub(d.StartedAt))
	switch d.State {
	case model.DeploymentSucceeded:
		p.Line("done: %s release %d with %d instances in %s", d.App, d.To, d.Instances, took)
	default:
		p.Line("%s: %s release %d after %s: %s", d.State, d.App, d.To, took, ui.Or(d.Why))
	}
	r := d.Receipt
	if r == nil {
		return
	}
	p.Line("receipt")
	p.Row("  digest", ui.Or(r.Digest))
	p.Row("  requests", fmt.Sprintf("%d served, %d failed", r.Requests, r.Failed))
	if r.Requests > 0 {
		p.Row("  latency", fmt.Sprintf("p50 %s, p99 %s", ui.Age(r.P50.D()), ui.Age(r.P99.D())))
	}
	if d.From != d.To { // a change of size has no first traffic of its own
		p.Row("  first healthy", ageOr(r.FirstHealthy, "-"))
		p.Row("  first traffic", ageOr(r.FirstTraffic, "no request yet"))
	}
}

func ageOr(d model.Duration, none string) string {
	if d <= 0 {
		return none
	}
	return ui.Age(d.D())
}

// outcome turns a deployment's end into an exit code; waiting explains the
// instances that had no place then.
func outcome(d *model.Deployment, waiting *model.Waiting) error {
	switch {
	case d.State == model.DeploymentSucceeded:
		return nil
	case d.State == model.DeploymentReverted:
		return &exitError{code: exitReverted}
	case d.State == model.DeploymentFailed && waiting != nil && !failing(waiting):
		return model.Errorf(model.CodeUnplaceable, "%s: %s", d.App, api.NoPlace(waiting.Tasks)).
			Because("%s", refusals(waiting)).Try("make room or change what it wants; see: appliance why %s", d.App)
	case d.State == model.DeploymentFailed:
		return &exitError{code: exitFailed}
	}
	return &exitError{code: exitFailed, err: model.Errorf(model.CodeConflict, "deployment %s is %s", d.ID, d.State).Because("%s", d.Why)}
}

// failing reports whether nodes hold the app back because its tasks fail; then
// more room would not help.
func failing(w *model.Waiting) bool {
	return slices.ContainsFunc(w.Refusals, func(r model.Refusal) bool { return r.Code == model.RefusedBackoff })
}

func refusals(w *model.Waiting) string {
	var out []string
	for _, r := range w.Refusals {
		out = append(out, r.Node+": "+r.Detail)
	}
	if len(out) == 0 {
		return "no node is of its environment"
	}
	return strings.Join(out, "; ")
}

func (a *app) whyCmd() *cobra.Command {
	var env string
	cmd := &cobra.Command{
		Use:     "why NAME --env ENV",
		Short:   "Say why an app does not run as wished, and what would help",
		Example: "  appliance why notejam --env test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var out api.Why
			if err := c.Get(cmd.Context(), "/why?app="+url.QueryEscape(fullID(args[0], env)), &out); err != nil {
				return err
			}
			return a.show(out, func(p *ui.Printer) {
				p.Line("%s: %s", out.App, out.Summary)
				if out.Waiting != nil {
					for _, r := range out.Waiting.Refusals {
						p.Row("  "+r.Node, r.Code, r.Detail)
					}
				}
				for _, t := range out.Failed {
					p.Row("  "+t.ID, t.NodeName, t.Status.Message)
				}
			})
		},
	}
	cmd.Flags().StringVarP(&env, "env", "e", "", "environment")
	return cmd
}

func fullID(name, env string) string {
	if env == "" || strings.HasPrefix(name, "/") {
		return name
	}
	return model.AppID(env, name)
}
