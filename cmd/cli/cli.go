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

func (a *app) exit(err error) int {
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var ee *exitError
	if errors.As(err, &ee) {
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
		Version:       a.version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.address, "address", os.Getenv("APPLIANCE_ADDR"), "API of a node: unix:///PATH or http://HOST:PORT (APPLIANCE_ADDR)")
	flags.StringVar(&a.token, "token", os.Getenv("APPLIANCE_TOKEN"), "API token for another machine's API (APPLIANCE_TOKEN)")
	flags.StringVar(&a.lab, "lab", os.Getenv("APPLIANCE_LAB"), "talk to this machine of the lab, for example mm1 (APPLIANCE_LAB)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	root.AddGroup(&cobra.Group{ID: "cluster", Title: "Cluster:"}, &cobra.Group{ID: "apps", Title: "Apps:"},
		&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "images", Title: "Images and access:"})
	a.group(root, "cluster", a.initCmd(), a.joinCmd(), a.runCmd(), a.leaveCmd(), a.drainCmd(), a.labCmd())
	a.group(root, "apps", a.deployCmd(), a.promoteCmd(), a.scaleCmd(), a.rollbackCmd(), a.restartCmd(), a.stopCmd(), a.whyCmd())
	a.group(root, "look", a.statusCmd(), a.psCmd(), a.nodesCmd(), a.appsCmd(), a.servicesCmd(), a.routesCmd(), a.imagesCmd(),
		a.volumesCmd(), a.eventsCmd(), a.logsCmd())
	a.group(root, "images", a.buildCmd(), a.tokenCmd(), a.envCmd(), a.kvCmd())
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
	return NewClient(addr, a.token)
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
