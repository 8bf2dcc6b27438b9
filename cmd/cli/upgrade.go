package cli

import (
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"

	"github.com/spf13/cobra"
)

func (a *app) upgradeCmd() *cobra.Command {
	cmd := look(a, "upgrade", "Show what every node runs and what an upgrade still lacks", at("/upgrade"), func(p *ui.Printer, st api.UpgradeStatus) {
		p.Row("NODE", "ROLE", "VERSION", "SPEAKS", "STATUS")
		for _, n := range st.Nodes {
			status := n.Status
			if !n.Answers && n.Status == "ready" {
				status += ", does not answer"
			}
			p.Row(n.Name, n.Role, ui.Or(n.Version), n.Speaks, status)
		}
		p.Line("")
		p.Line("the cluster has protocol level %d", st.Level)
		for _, m := range st.Missing {
			p.Line("missing: %s", m)
		}
		switch {
		case st.Possible <= st.Level:
		case !st.Held.IsZero():
			p.Line("all nodes speak level %d; held until %s (appliance upgrade resume, or finish)", st.Possible, st.Held.Local().Format(time.DateTime))
		default:
			p.Line("all nodes speak level %d: it is raised after ten minutes, or now by: appliance upgrade finish", st.Possible)
		}
	})
	cmd.Long = `Show what every node runs and what an upgrade still lacks.

To upgrade, replace the binary and restart the service on one node after the
other, in any order. Old and new binaries work together, and until the
cluster's protocol level is raised every node may go back to the old one. The
leader raises the level when all nodes have spoken it for ten minutes; after
that older binaries are refused.`
	cmd.Example = "  appliance upgrade\n  appliance upgrade hold --for 72h\n  appliance upgrade finish"
	cmd.AddCommand(a.upgradeFinishCmd(), a.upgradeHoldCmd(), a.upgradeResumeCmd(), a.upgradeCheckCmd())
	return cmd
}

func (a *app) upgradeFinishCmd() *cobra.Command {
	return &cobra.Command{Use: "finish", Short: "Make the upgrade final now: older binaries are refused from then on", Args: noArgs,
		Example: "  appliance upgrade finish",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out api.UpgradeStatus
			return a.postShow(cmd, "/upgrade/finish", struct{}{}, &out, func(p *ui.Printer) { p.Line("the cluster has protocol level %d", out.Level) })
		}}
}

func (a *app) upgradeHoldCmd() *cobra.Command {
	var d time.Duration
	cmd := &cobra.Command{Use: "hold", Short: "Keep the way back to the older binaries open for longer", Args: noArgs,
		Example: "  appliance upgrade hold --for 72h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out api.UpgradeStatus
			return a.postShow(cmd, "/upgrade/hold", api.HoldRequest{For: d}, &out, func(p *ui.Printer) {
				p.Line("the protocol level is not raised by itself until %s", out.Held.Local().Format(time.DateTime))
			})
		}}
	cmd.Flags().DurationVar(&d, "for", 7*24*time.Hour, "how long")
	return cmd
}

func (a *app) upgradeResumeCmd() *cobra.Command {
	return &cobra.Command{Use: "resume", Short: "End a hold", Args: noArgs, Example: "  appliance upgrade resume",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.postShow(cmd, "/upgrade/resume", struct{}{}, &struct{}{}, func(p *ui.Printer) { p.Line("the hold is over") })
		}}
}

func (a *app) upgradeCheckCmd() *cobra.Command {
	return &cobra.Command{Use: "check", Short: "Compare the state of all nodes now, as the leader does every minute", Args: noArgs,
		Long: `Compare the state of all nodes now, as the leader does every minute. All of them
hash their state at the same index of the log; a difference is an alarm: it is
in the log, in the events and among the warnings of appliance status. The exit
code is 1 then.`,
		Example: "  appliance upgrade check",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out api.StateCheck
			err := a.postShow(cmd, "/upgrade/check", struct{}{}, &out, func(p *ui.Printer) {
				if len(out.Diverged) == 0 {
					p.Line("%d nodes have the same state at index %d", out.Nodes, out.Index)
				}
				for _, d := range out.Diverged {
					p.Line("%s differs from the other masters at index %d in: %s", d.Name, out.Index, strings.Join(d.Tables, ", "))
				}
			})
			if err == nil && len(out.Diverged) > 0 {
				return &exitError{code: exitFailed}
			}
			return err
		}}
}

// postShow sends in and shows the answer.
func (a *app) postShow(cmd *cobra.Command, path string, in, out any, show func(p *ui.Printer)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Post(cmd.Context(), path, in, out); err != nil {
		return err
	}
	return a.show(out, show)
}
