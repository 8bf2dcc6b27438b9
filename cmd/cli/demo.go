package cli

import (
	"errors"

	"appliance/cmd/cli/ui"
	"appliance/node/lab"
	"appliance/node/lab/story"

	"github.com/spf13/cobra"
)

// place adds the flags that say where the demo or the bench takes place.
func (a *app) place(cmd *cobra.Command) *story.Options {
	o := &story.Options{Out: a.out, Terminal: ui.IsTerminal(a.out)}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", lab.DefaultDir, "directory of the lab")
	f.StringVar(&o.Name, "name", lab.DefaultName, "name of the lab")
	f.StringVar(&o.ClusterFile, "cluster", "", "another description of the machines")
	f.StringVar(&o.App, "app", "cmd/notejam", "directory of the demo's app")
	return o
}

func (a *app) demoCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Tell the whole story on this machine; the lab stays up",
		Long: `Tell the whole story on this machine: seven machines, an image, test and
production, scaling under load, and three kinds of loss. Every step checks what
it promises; the first broken promise ends the demo with exit code 1. The lab
stays up for a look; 'appliance lab down' removes it.`,
		Args: noArgs,
	}
	o := a.place(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := story.New(*o)
		if err != nil {
			return err
		}
		return s.Demo(cmd.Context())
	}
	return cmd
}

func (a *app) benchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the targets in a lab",
		Long: `Measure the targets in a lab of its own, which is removed afterwards. The exit
code is 1 if a floor is missed. Close everything else that uses the processor.`,
		Args: noArgs,
	}
	o := a.place(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := story.RunBench(cmd.Context(), *o, a.errOut)
		if b == nil {
			return err
		}
		return errors.Join(a.show(b, func(p *ui.Printer) { p.Line("%s", b.Text()) }), err)
	}
	return cmd
}
