package cli

import "github.com/spf13/cobra"

func (a *app) demoCmd() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Tell the whole story on this machine; the lab stays up", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return nil }}
}

func (a *app) benchCmd() *cobra.Command {
	return &cobra.Command{Use: "bench", Short: "Measure the targets in a lab", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return nil }}
}
