package cli

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/lab"
	"appliance/node/model"
	"appliance/vagrant"

	"github.com/spf13/cobra"
)

// labCmd wraps the lab's verbs, which know nothing of this library.
func (a *app) labCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "lab", Short: "Run the seven machines of the demo on this host"}
	for _, v := range lab.Verbs("") {
		cmd.AddCommand(a.labVerb(v))
	}
	cmd.AddCommand(a.demoCmd(), a.benchCmd())
	return cmd
}

func (a *app) labVerb(v lab.Verb) *cobra.Command {
	use := v.Name
	if v.Args != "" {
		use += " " + v.Args
	}
	c := &cobra.Command{Use: use, Short: v.Short, Long: v.Long, Example: indent(v.Example), Args: cobra.RangeArgs(v.Min, v.Max)}
	if v.Max < 0 {
		c.Args = cobra.MinimumNArgs(v.Min)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		log := slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
		res, err := v.Run(cmd.Context(), lab.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Log: log}, args)
		var exit *lab.ExitError
		if errors.As(err, &exit) {
			return &exitError{code: exit.ExitCode()}
		}
		if err != nil || res == nil {
			return err
		}
		if v.Name == "up" {
			awaitLab(cmd.Context())
		}
		return a.show(res, func(p *ui.Printer) {
			if t, ok := res.(interface{ Text() string }); ok {
				p.Line("%s", t.Text())
				return
			}
			p.Line("%v", res)
		})
	}
	if v.Flags != nil {
		set := flag.NewFlagSet(v.Name, flag.ContinueOnError)
		v.Flags(set)
		c.Flags().AddGoFlagSet(set)
	}
	if v.Raw {
		c.Flags().SetInterspersed(false)
	}
	return c
}

// indent sets an example as those of the other verbs.
func indent(text string) string {
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// readyTime bounds the wait for a lab's machines to say that they are there.
const readyTime = 10 * time.Second

// awaitLab returns when every machine of the lab is ready, so that the next
// command finds the cluster whole. A bare lab, or one that is slow, is not
// waited for longer than it is worth: status tells.
func awaitLab(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for ctx.Err() == nil {
		if addr := anyLabSocket(); addr == "" || labReady(ctx, addr) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func labReady(ctx context.Context, addr string) bool {
	c, err := NewClient(addr, "")
	if err != nil {
		return false
	}
	var nodes []api.NodeView
	if c.Get(ctx, "/nodes?stale", &nodes) != nil || len(nodes) == 0 {
		return false
	}
	for _, n := range nodes {
		if n.Status != model.NodeReady {
			return false
		}
	}
	return true
}

// labSocket is the address of a lab machine's API.
func labSocket(machine string) string {
	return "unix://" + filepath.Join(lab.DefaultDir, filepath.Base(machine), "run", "api.sock")
}

// anyLabSocket is the address of the first lab machine that runs, "" if there
// is no lab.
func anyLabSocket() string {
	c, err := vagrant.Load()
	if err != nil {
		return ""
	}
	for _, m := range c.Machines {
		addr := labSocket(m.Name)
		if conn, err := dialUnix(addr); err == nil {
			conn.Close()
			return addr
		}
	}
	return ""
}
