package cli

import (
	"net/url"

	"appliance/cmd/cli/ui"
	"appliance/node/api"

	"github.com/spf13/cobra"
)

func (a *app) nodesRemoveCmd() *cobra.Command {
	var risk string
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Forget a machine that is gone for ever", Args: cobra.ExactArgs(1),
		Long: `Forget a machine that is gone for ever: it is listed no more, and a master's vote
goes. A machine that is there leaves by itself (appliance leave); one that is
replaced needs no rm: join the new one with the same name. A removed machine that
comes back is not let in until it joins again.`,
		Example: "  appliance nodes rm ms4",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			path := "/nodes/" + url.PathEscape(args[0])
			if risk != "" {
				path += "?accept-risk=" + url.QueryEscape(risk)
			}
			if err := c.Delete(cmd.Context(), path); err != nil {
				return err
			}
			return a.show(map[string]string{"removed": args[0]}, func(p *ui.Printer) { p.Line("%s is removed", args[0]) })
		},
	}
	cmd.Flags().StringVar(&risk, "accept-risk", "", api.RiskLoseLocalData+": the only latest copy of a volume may go with it")
	return cmd
}
