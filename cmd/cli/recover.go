package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

// riskLoseWrites is what a recovery may cost.
const riskLoseWrites = "lose-writes"

// recoverTime bounds the wait for the node to carry out an order.
const recoverTime = 90 * time.Second

type recoverOptions struct {
	resync, plan, undo bool
	risk               string
	from               []string
	data               string
}

func (a *app) recoverCmd() *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on after the loss of most masters, or renew a damaged one",
		Long: `Go on after the loss of most masters, or renew a damaged one. Run it as root on
a master, whether its node runs or not.

Without flags: most masters are lost for ever and the cluster takes no changes.
It shows what this master has and what may be lost, asks the masters that
answer whether one has more, and after a confirmation this master goes on
alone; then join new ones. Lost masters that come back are not let in until
they are renewed.

With --resync: this master's log is damaged or was left behind. It takes
everything anew from the other masters, which must have a majority without it:
if they have not, nothing is changed. Until they have taken it in it does not
vote, and --undo puts back the log that it had. On an agent --resync renews the
state that it has in memory.

Nothing is deleted: what there was is kept in the directory "damaged" of the
data directory.`,
		Example: `  appliance recover --plan
  appliance recover --accept-risk=lose-writes
  appliance recover --resync
  appliance recover --undo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := node.NeedRoot(); err != nil {
				return err
			}
			switch {
			case o.resync:
				return a.resync(cmd.Context(), o)
			case o.undo:
				return a.undoResync(cmd.Context(), o)
			}
			return a.recover(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.resync, "resync", false, "take everything anew from the other masters")
	f.BoolVar(&o.plan, "plan", false, "show what would be kept and lost, and change nothing")
	f.BoolVar(&o.undo, "undo", false, "go on with the log from before a --resync that waits for the other masters")
	f.StringVar(&o.risk, "accept-risk", "", `"lose-writes" says that what only the lost masters had may be lost; with --resync "lose-quorum" says that the cluster may wait for the others`)
	f.StringSliceVar(&o.from, "from", nil, "addresses of masters to resync from (default: those that the log names)")
	f.StringVar(&o.data, "data", node.DefaultData, "data directory")
	_ = f.MarkHidden("data")
	cmd.MarkFlagsMutuallyExclusive("resync", "plan", "undo")
	return cmd
}

// recovered is the answer of both forms.
type recovered struct {
	Plan *node.RecoveryPlan `json:"plan,omitempty"`
	Done *node.OrderDone    `json:"done,omitempty"`
}

func (a *app) recover(ctx context.Context, o recoverOptions) error {
	p, err := node.PlanRecovery(ctx, o.data, node.DefaultRun)
	if err != nil {
		return err
	}
	if !a.json {
		out := ui.NewPrinter(a.out)
		printPlan(out, p)
		if err := out.Flush(); err != nil {
			return err
		}
	}
	switch {
	case o.plan && a.json:
		return a.show(recovered{Plan: p}, nil)
	case o.plan:
		return nil // the plan has told
	case p.Refused != nil:
		return p.Refused
	}
	if err := a.confirm(o.risk, p.Node); err != nil {
		return err
	}
	at, err := p.Order()
	if err != nil {
		return err
	}
	done, err := a.awaitOrder(ctx, o.data, at)
	if err != nil {
		return err
	}
	return a.show(recovered{p, done}, func(out *ui.Printer) {
		out.Line("the cluster goes on from %s as generation %d", p.Node, p.Generation)
		out.Line("the log as it was is kept in %s", done.Kept)
		out.Line("now join two masters; make a token with: appliance token create --role master")
		out.Line("a lost master that comes back: appliance recover --resync there")
	})
}

func printPlan(out *ui.Printer, p *node.RecoveryPlan) {
	out.Row("MASTER", "LOG ENDS AT", "TERM", "")
	for _, m := range p.Masters {
		if m.Answers {
			out.Row(m.Name, m.Last, m.Term, ui.Or(m.Why))
		} else {
			out.Row(m.Name, "-", "-", "does not answer: "+m.Why)
		}
	}
	out.Line("")
	out.Line("this master has the log up to index %d; up to %d it is known to be committed", p.Last, p.Commit)
	if p.Commit < p.Last {
		out.Line("entries %d to %d are kept too, though it is not known whether they were acknowledged", p.Commit+1, p.Last)
	}
	if p.Seen > p.Last {
		out.Line("LOST for certain: entries %d to %d, which %s has seen", p.Last+1, p.Seen, p.SeenBy)
	}
	out.Line("what may be lost: changes after index %d that only the masters had that do not answer", max(p.Last, p.Seen))
	if p.Refused != nil {
		out.Line("nothing is done: %v", p.Refused)
	} else {
		out.Line("%s would go on alone, as generation %d of the cluster", p.Node, p.Generation)
	}
}

// confirm wants the risk named, on a terminal by typing the node's name.
func (a *app) confirm(risk, name string) error {
	if risk == riskLoseWrites {
		return nil
	}
	fix := "if the others are lost for ever: --accept-risk=" + riskLoseWrites
	denied := model.Errorf(model.CodeDenied, "a recovery may lose acknowledged changes").Because("the other masters are given up").Try("%s", fix)
	if risk != "" || a.json || !ui.IsTerminal(os.Stdin) {
		return denied
	}
	fmt.Fprintf(a.errOut, "the other masters are given up for ever. Type the name of this master (%s) to go on: ", name)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return denied
	}
	return nil
}

func (a *app) resync(ctx context.Context, o recoverOptions) error {
	if o.risk != "" && o.risk != node.RiskLoseQuorum {
		return model.Errorf(model.CodeInvalid, "there is no risk %q here", o.risk).Try("--accept-risk=%s, if this master is to wait without a log", node.RiskLoseQuorum)
	}
	at, err := node.OrderResync(ctx, o.data, node.DefaultRun, o.from, o.risk == node.RiskLoseQuorum)
	if err != nil {
		return err
	}
	done, err := a.awaitOrder(ctx, o.data, at)
	if err != nil {
		return err
	}
	return a.show(recovered{Done: done}, func(out *ui.Printer) {
		if done.Kind == "resync" {
			out.Line("this master was taken in again; it votes as soon as it has caught up")
		} else {
			out.Line("this agent takes the state anew from the masters")
		}
		if done.Kept != "" {
			out.Line("what it had is kept in %s", done.Kept)
		}
	})
}

func (a *app) undoResync(ctx context.Context, o recoverOptions) error {
	at, err := node.OrderUndo(o.data, node.DefaultRun)
	if err != nil {
		return err
	}
	done, err := a.awaitDone(ctx, o.data, at)
	if err != nil {
		return err
	}
	return a.show(recovered{Done: done}, func(out *ui.Printer) { out.Line("this master goes on with the log that it had") })
}

// awaitOrder is awaitDone, and then waits until the node is in touch.
func (a *app) awaitOrder(ctx context.Context, data string, at time.Time) (*node.OrderDone, error) {
	done, err := a.awaitDone(ctx, data, at)
	if err != nil {
		return nil, err
	}
	return done, a.awaitNode(ctx)
}

// awaitDone starts the node if systemd has it stopped, and waits until it
// has done as told.
func (a *app) awaitDone(ctx context.Context, data string, at time.Time) (*node.OrderDone, error) {
	if hasSystemd() {
		if out, err := exec.CommandContext(ctx, "systemctl", "start", "appliance").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("systemctl start appliance: %w: %s", err, out)
		}
	}
	fmt.Fprintln(a.errOut, "waiting for the node to start again")
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	for {
		done, err := node.Ordered(data, at)
		if err != nil {
			return nil, err
		}
		if done != nil {
			return done, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, model.Errorf(model.CodeUnavailable, "the node has not done it yet").
				Because("it waits for the other masters, or nothing starts it").
				Try("see its log (journalctl -u appliance); without systemd: appliance run. It goes on by itself")
		}
	}
}
