package cli

import (
	"fmt"
	"net/url"
	"sort"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/discovery"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

// look makes a verb that reads path and shows it.
func look[T any](a *app, use, short string, path func() string, show func(p *ui.Printer, v T)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var v T
		if err := c.Get(cmd.Context(), path(), &v); err != nil {
			return err
		}
		return a.show(v, func(p *ui.Printer) { show(p, v) })
	}}
}

func at(path string) func() string { return func() string { return path } }

func (a *app) statusCmd() *cobra.Command {
	return look(a, "status", "Show the cluster at a glance", at("/status"), func(p *ui.Printer, st api.Status) {
		if st.Cluster == "" {
			p.Line("this master waits for a majority of the masters; it knows nothing of the cluster yet")
			printFindings(p, st)
			return
		}
		p.Line("cluster %s, leader %s, VIP %s on %s", st.Cluster, ui.Or(st.Leader), ui.Or(st.VIP), ui.Or(st.VIPNode))
		if !st.Fresh {
			p.Line("warning: %s is out of touch with the masters; this is what it last knew", st.Node)
		}
		printFindings(p, st)
		p.Line("")
		printNodes(p, st.Nodes)
		p.Line("")
		printApps(p, st.Apps)
	})
}

func (a *app) nodesCmd() *cobra.Command {
	cmd := look(a, "nodes", "List the machines", at("/nodes"), printNodes)
	cmd.AddCommand(a.nodesRemoveCmd())
	return cmd
}

func printNodes(p *ui.Printer, nodes []api.NodeView) {
	p.Row("NODE", "ROLE", "ADDRESS", "STATUS", "ATTRIBUTES", "CPUS", "MEM", "TASKS", "RUNTIME")
	for _, n := range nodes {
		status := n.State()
		if n.Drain {
			status += ",draining"
		}
		role := string(n.Role)
		switch {
		case n.Leader:
			role += ",leader"
		case n.Vote != "":
			role += "," + n.Vote
		}
		if n.VIP {
			role += ",vip"
		}
		cpus, mem, tasks := "-", "-", "-"
		if n.Role == model.RoleAgent {
			cpus, tasks = fmt.Sprintf("%.1f/%.1f", n.Used.CPUs, n.Capacity.CPUs), fmt.Sprint(n.Tasks)
			mem = fmt.Sprintf("%.0f/%.0fM", n.Used.Memory, n.Capacity.Memory)
		}
		p.Row(n.Name, role, n.Addr, status, attributes(n.Attributes), cpus, mem, tasks, ui.Or(n.Runtime))
	}
}

func attributes(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return ui.Or(strings.Join(out, ","))
}

func (a *app) appsCmd() *cobra.Command {
	return look(a, "apps", "List the apps", at("/apps"), printApps)
}

func printApps(p *ui.Printer, apps []api.AppView) {
	if len(apps) == 0 {
		p.Line("no apps yet; deploy one with: appliance deploy NAME --env ENV")
		return
	}
	p.Row("APP", "RELEASE", "READY", "IMAGE", "DIGEST", "HOSTS", "STATE")
	for _, v := range apps {
		p.Row(v.ID, v.Release, fmt.Sprintf("%d/%d", v.Ready, v.Instances), v.Image, ui.Short(v.Digest), ui.Or(strings.Join(v.Hosts, ",")), appState(v))
	}
}

func appState(v api.AppView) string {
	switch {
	case v.Waiting != nil:
		return fmt.Sprintf("%d without a place (appliance why %s)", v.Waiting.Tasks, v.ID)
	case v.Deploying != nil:
		return v.Deploying.Kind + " since " + ui.Since(v.Deploying.StartedAt)
	case v.LastReason != "":
		return "failing: " + v.LastReason
	case v.Ready < v.Instances:
		return "recovering"
	}
	return "steady"
}

func (a *app) psCmd() *cobra.Command {
	var app, env, node string
	var all bool
	cmd := look(a, "ps", "List the instances", func() string {
		q := url.Values{}
		for k, v := range map[string]string{"env": env, "node": node} {
			if v != "" {
				q.Set(k, v)
			}
		}
		if app != "" {
			q.Set("app", fullID(app, env))
		}
		if all {
			q.Set("all", "1")
		}
		return "/tasks?" + q.Encode()
	}, func(p *ui.Printer, tasks []api.TaskView) {
		p.Row("TASK", "APP", "RELEASE", "NODE", "PORTS", "STATE", "AGE", "MESSAGE")
		for _, t := range tasks {
			p.Row(t.ID, t.App, t.Release, ui.Or(t.NodeName), ports(t.Ports), taskState(t), ui.Since(t.CreatedAt), t.Status.Message)
		}
	})
	cmd.Flags().StringVar(&app, "app", "", "only this app")
	cmd.Flags().StringVarP(&env, "env", "e", "", "only this environment")
	cmd.Flags().StringVar(&node, "node", "", "only this node")
	cmd.Flags().BoolVar(&all, "all", false, "ended ones too")
	return cmd
}

func ports(list []int) string {
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprint(p))
	}
	return ui.Or(strings.Join(out, ","))
}

func taskState(t api.TaskView) string {
	s := strings.ToLower(strings.TrimPrefix(string(t.Status.State), "TASK_"))
	switch {
	case t.Ready:
		return s + ",ready"
	case t.Stop && t.Live():
		return s + ",stopping"
	}
	return s
}

func (a *app) servicesCmd() *cobra.Command {
	return look(a, "services", "List the service catalog", at("/services"), func(p *ui.Printer, list []discovery.Endpoint) {
		p.Row("SERVICE", "ADDRESS", "NODE", "STATUS", "TAGS")
		for _, e := range list {
			status := string(e.Status)
			if e.Draining {
				status = "draining"
			}
			p.Row(e.Service, fmt.Sprintf("%s:%d", e.Addr, e.Port), e.Node, status, ui.Or(strings.Join(e.Tags, ",")))
		}
	})
}

func (a *app) routesCmd() *cobra.Command {
	return look(a, "routes", "List the host names that the proxies answer", at("/routes"), func(p *ui.Printer, list []api.RouteView) {
		p.Row("HOST", "PATH", "APP", "BACKENDS")
		for _, r := range list {
			p.Row(r.Host, r.Path, r.App, ui.Or(strings.Join(r.Backends, " ")))
		}
	})
}

func (a *app) imagesCmd() *cobra.Command {
	return look(a, "images", "List the images of the registry", at("/images"), func(p *ui.Printer, list []api.ImageView) {
		p.Row("IMAGE", "TAG", "DIGEST", "PUSHED", "USED BY")
		for _, i := range list {
			p.Row(i.Repo, i.Tag, ui.Short(i.Digest), ui.Since(i.PushedAt), ui.Or(strings.Join(i.Apps, ",")))
		}
	})
}

func (a *app) volumesCmd() *cobra.Command {
	cmd := look(a, "volumes", "List the shared volumes", at("/volumes"), func(p *ui.Printer, list []api.VolumeView) {
		p.Row("VOLUME", "SERVED BY", "IN SYNC", "EPOCH", "STATE")
		for _, v := range list {
			state := "ok"
			if !v.Alive {
				state = "unavailable: " + v.PrimaryName + " is away"
			}
			p.Row(v.Name, v.PrimaryName, ui.Or(strings.Join(v.InSyncNames, ",")), v.Epoch, state)
		}
	})
	cmd.AddCommand(&cobra.Command{Use: "rm NAME", Short: "Remove a volume that nobody uses, with its data", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.Delete(cmd.Context(), "/volumes/"+url.PathEscape(args[0]))
		}})
	return cmd
}

func (a *app) eventsCmd() *cobra.Command {
	var limit int
	cmd := look(a, "events", "Show the cluster's recent history", func() string { return fmt.Sprintf("/events?limit=%d", limit) },
		func(p *ui.Printer, list []model.Event) {
			for _, e := range list {
				p.Row(e.At.Local().Format(time.TimeOnly), e.Kind, e.Subject, e.Text)
			}
		})
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "how many lines")
	return cmd
}
