package cli

import (
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) autopilotCmd() *cobra.Command {
	show := look(a, "show", "Show which masters vote and by which rule", at("/autopilot"), printAutopilot)
	show.Example = "  appliance autopilot show"
	cmd := &cobra.Command{Use: "autopilot", Short: "Show or set how many masters vote",
		Long: `Show or set how many masters vote.

All masters vote up to three, three of four, and of more as many as --max-voters
says (an odd number). The others are standbys: they follow without a vote. A
voter that is dead for --dead-after is replaced by a standby; without one it
keeps its vote until it is back or has left.`}
	cmd.AddCommand(show, a.autopilotSetCmd())
	return cmd
}

func printAutopilot(p *ui.Printer, v api.Autopilot) {
	p.Line("at most %d voters; a dead one is replaced after %s", v.MaxVoters, time.Duration(v.DeadAfter))
	p.Line("voters:   %s", ui.Or(strings.Join(v.Voters, " ")))
	p.Line("standbys: %s", ui.Or(strings.Join(v.Standbys, " ")))
	p.Line("changes go on after the loss of %d more", v.Tolerates)
}

func (a *app) autopilotSetCmd() *cobra.Command {
	var voters int
	var dead time.Duration
	cmd := &cobra.Command{Use: "set", Short: "Change how many masters vote, or when a dead one is replaced", Args: noArgs,
		Example: "  appliance autopilot set --max-voters 3 --dead-after 30s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var req api.AutopilotRequest
			if cmd.Flags().Changed("max-voters") {
				req.MaxVoters = &voters
			}
			if cmd.Flags().Changed("dead-after") {
				d := model.Duration(dead)
				req.DeadAfter = &d
			}
			if req == (api.AutopilotRequest{}) {
				return model.Errorf(model.CodeInvalid, "nothing to set").Try("name --max-voters or --dead-after; see: appliance autopilot show")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			var set model.Autopilot
			if err := c.Post(cmd.Context(), "/autopilot", req, &set); err != nil {
				return err
			}
			return a.show(set, func(p *ui.Printer) {
				p.Line("at most %d voters; a dead one is replaced after %s", set.MaxVoters, time.Duration(set.DeadAfter))
			})
		}}
	cmd.Flags().IntVar(&voters, "max-voters", 0, "how many masters vote at most: 1, 3, 5, 7 or 9")
	cmd.Flags().DurationVar(&dead, "dead-after", 0, "how long a voter must be dead to be replaced by a standby")
	return cmd
}
