// Package cli is the command line: one verb a file. Answers go to standard
// output and everything else to standard error; --json prints the API's own
// words; the exit code tells the truth.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

// Exit codes. They are part of the interface.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUnplaceable = 2
	exitReverted    = 3
)

// exitError ends the command with a code other than 1, its text already shown
// or empty.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// app is what the verbs share.
type app struct {
	address string
	token   string
	lab     string // name of a lab machine to talk to
	json    bool
	out     io.Writer
	errOut  io.Writer
	version string
}

// Main runs the command line and returns the exit code.
func Main(version string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: os.Stdout, errOut: os.Stderr, version: version}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return a.exit(err)
}

// environment fills in what no flag said. The values are no flag defaults,
// because help prints those and one is a secret.
func (a *app) environment(cmd *cobra.Command, _ []string) error {
	for name, v := range map[string]*string{"address": &a.address, "token": &a.token, "lab": &a.lab} {
		f := cmd.Root().PersistentFlags().Lookup(name)
		if !f.Changed {
			*v = os.Getenv(variables[name])
		}
	}
	return nil
}

var variables = map[string]string{"address": "APPLIANCE_ADDR", "token": "APPLIANCE_TOKEN", "lab": "APPLIANCE_LAB"}

// usage makes what the flag library says an error of ours.
func usage(cmd *cobra.Command, err error) error {
	return model.Errorf(model.CodeInvalid, "%v", err).Try("see: %s --help", cmd.CommandPath())
}

// unknown refuses words where only a verb may stand.
func unknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := model.Errorf(model.CodeInvalid, "there is no verb %q in %s", args[0], cmd.CommandPath()).Try("see: %s --help", cmd.CommandPath())
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		e = e.Try("perhaps: %s %s", cmd.CommandPath(), like[0])
	}
	return e
}

// finish gives every verb the same manners, down the tree.
func finish(cmd *cobra.Command) {
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.DisableFlagsInUseLine = true
		cmd.Args, cmd.RunE = unknown, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	} else if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage(cmd, fmt.Errorf("%s: %w", cmd.UseLine(), err))
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		finish(c)
	}
}

func (a *app) exit(err error) int {
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var ee *exitError
	if errors.As(err, &ee) { // the verb has decided
		code = ee.code
	} else if model.CodeOf(err) == model.CodeUnplaceable {
		code = exitUnplaceable
	}
	if err.Error() != "" {
		a.printError(err)
	}
	return code
}

// printError says what, why and what to do, each on its line.
func (a *app) printError(err error) {
	var e *model.Error
	if a.json {
		if !errors.As(err, &e) {
			e = model.Errorf(model.CodeInternal, "%v", err)
		}
		_ = json.NewEncoder(a.errOut).Encode(map[string]any{"error": e})
		return
	}
	if !errors.As(err, &e) {
		fmt.Fprintln(a.errOut, "error:", err)
		return
	}
	fmt.Fprintln(a.errOut, "error:", e.What)
	if e.Why != "" {
		fmt.Fprintln(a.errOut, "  why:", e.Why)
	}
	if e.Fix != "" {
		fmt.Fprintln(a.errOut, "  fix:", e.Fix)
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "appliance",
		Short: "Turns a few Linux machines into a production cluster for containers",
		Long: `appliance turns a few Linux machines into a production cluster for containers:
consensus, scheduling, service discovery, load balancing, a registry and shared
volumes in one program. The first machine runs "appliance init", the others
"appliance join" with the tokens it prints.`,
		Version:           a.version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: a.environment,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(usage)
	flags := root.PersistentFlags()
	flags.StringVar(&a.address, "address", "", "API of a node: unix:///PATH or http://HOST:PORT (APPLIANCE_ADDR)")
	flags.StringVar(&a.token, "token", "", "API token, for another machine's API or operators' verbs on an agent (APPLIANCE_TOKEN)")
	flags.StringVar(&a.lab, "lab", "", "talk to this machine of the lab, for example mm1 (APPLIANCE_LAB)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	root.AddGroup(&cobra.Group{ID: "cluster", Title: "Cluster:"}, &cobra.Group{ID: "apps", Title: "Apps:"},
		&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "images", Title: "Images and access:"})
	a.group(root, "cluster", a.initCmd(), a.joinCmd(), a.runCmd(), a.leaveCmd(), a.setCmd(), a.drainCmd(), a.autopilotCmd(), a.snapshotCmd(), a.recoverCmd(), a.upgradeCmd(), a.auditCmd(), a.labCmd(), a.chaosCmd())
	a.group(root, "apps", a.deployCmd(), a.promoteCmd(), a.scaleCmd(), a.rollbackCmd(), a.restartCmd(), a.stopCmd(), a.whyCmd())
	a.group(root, "look", a.statusCmd(), a.doctorCmd(), a.netCmd(), a.psCmd(), a.nodesCmd(), a.appsCmd(), a.servicesCmd(), a.routesCmd(), a.imagesCmd(),
		a.volumesCmd(), a.eventsCmd(), a.logsCmd())
	a.group(root, "images", a.buildCmd(), a.tokenCmd(), a.secretCmd(), a.caCmd(), a.gossipCmd(), a.envCmd(), a.kvCmd())
	finish(root)
	return root
}

func (a *app) group(root *cobra.Command, id string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// client connects to the node that the flags name: the local one by default,
// a lab machine if the lab is up and there is no local node.
func (a *app) client() (*Client, error) {
	addr := a.address
	if a.lab != "" {
		addr = labSocket(a.lab)
	}
	if addr == "" {
		addr = "unix://" + DefaultSocket
		if _, err := os.Stat(DefaultSocket); os.IsNotExist(err) {
			if first := anyLabSocket(); first != "" {
				addr = first
			}
		}
	}
	c, err := NewClient(addr, a.token)
	if err == nil {
		c.lab, c.stale = a.lab, a.sayStale
	}
	return c, err
}

// sayStale tells of an answer that nobody confirms, beside it.
func (a *app) sayStale(asOf string) {
	since := "before it started"
	if at, err := time.Parse(time.RFC3339, asOf); err == nil {
		since = fmt.Sprintf("%s ago (%s)", ui.Since(at), at.Local().Format(time.DateTime))
	}
	fmt.Fprintf(a.errOut, "note: no master leads that could confirm this; it is what the node knew %s\n", since)
}

// show prints v as JSON, or by fn for people.
func (a *app) show(v any, fn func(p *ui.Printer)) error {
	if a.json {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	p := ui.NewPrinter(a.out)
	fn(p)
	return p.Flush()
}

// noArgs refuses words that a verb does not take.
var noArgs = cobra.NoArgs
