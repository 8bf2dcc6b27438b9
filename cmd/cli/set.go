package cli

import (
	"appliance/cmd/cli/ui"
	"appliance/node"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) setCmd() *cobra.Command {
	var ch node.Changes
	var data string
	cmd := &cobra.Command{Use: "set", Short: "Change this machine's settings: its address, the masters it asks first", Args: noArgs,
		Long: `Change this machine's settings. It works on a node that runs, which starts again
by itself, and on one that is stopped.

A machine whose address init or join found by themselves needs this only if it
has several addresses: otherwise the node follows by itself. If all masters have
moved at once they meet by the agents; without any agent, name some of the new
addresses on every master with --masters.`,
		Example: "  appliance set --advertise 192.168.56.31",
		RunE: func(*cobra.Command, []string) error {
			if ch.Advertise == "" && len(ch.Masters) == 0 {
				return model.Errorf(model.CodeInvalid, "nothing to set").Try("name --advertise or --masters")
			}
			if err := node.NeedRoot(); err != nil {
				return err
			}
			c, runs, err := node.Set(data, node.DefaultRun, ch)
			if err != nil {
				return err
			}
			out := struct {
				Name      string   `json:"name"`
				Advertise string   `json:"advertise"`
				Masters   []string `json:"masters"`
				Restarts  bool     `json:"restarts"`
			}{c.Name, c.Advertise, c.Masters, runs}
			return a.show(out, func(p *ui.Printer) {
				p.Line("%s is at %s", c.Name, c.Advertise)
				if runs {
					p.Line("the node starts again with it in a moment; see: appliance status")
				} else {
					p.Line("the node uses it when it starts")
				}
			})
		}}
	cmd.Flags().StringVar(&ch.Advertise, "advertise", "", "IP address at which the others reach this node")
	cmd.Flags().StringSliceVar(&ch.Masters, "masters", nil, "addresses of masters to ask first")
	cmd.Flags().StringVar(&data, "data", node.DefaultData, "data directory")
	_ = cmd.Flags().MarkHidden("data")
	return cmd
}
