package cli

import (
	"log/slog"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/lab"
	"appliance/node/lab/chaos"
	"appliance/node/lab/fault"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

// chaosCmd makes faults in a lab.
func (a *app) chaosCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "chaos", Short: "Break the machines of a lab on purpose, and look what holds",
		Long: `Break the machines of a lab on purpose, and look what holds. Every fault ends by
itself at its deadline: a process on the machine itself sees to that, whatever
becomes of this command. A target is a machine, or what one is at the moment:
leader, vip, follower, followers, spare, masters, agents, all; master, agent and
machine are one at random. A fault that would leave the masters that vote and
live without a majority is refused unless --accept-risk=lose-quorum; so are a
link below 20 kB/s and a clock that is 10 minutes off, as if the machine was down.`}
	for _, v := range chaosVerbs {
		cmd.AddCommand(a.faultCmd(v))
	}
	cmd.AddCommand(a.chaosHealCmd(), a.chaosListCmd(), a.chaosScenariosCmd(), a.chaosRunCmd())
	return cmd
}

type chaosVerb struct {
	kind, args, short, example string
	flags                      func(cmd *cobra.Command, s *chaos.Spec)
}

var chaosVerbs = []chaosVerb{
	{fault.Kill, "TARGET...", "Kill the service (SIGKILL), and again whenever it comes up before the deadline", "kill leader --for 5s", nil},
	{fault.Pause, "TARGET...", "Stop the service's process (SIGSTOP); its containers go on", "pause mm1 --for 10s", nil},
	{chaos.PowerOff, "TARGET...", "End machines at once with all that runs in them, and start them again at the deadline", "poweroff ms2", nil},
	{chaos.Partition, "TARGET... [/ TARGET...]...", "Cut groups of machines from each other; a single group from all other machines", "partition leader / followers", nil},
	{chaos.OneWay, "TARGET... / TARGET...", "Drop what the first group sends to the second, and nothing else", "oneway leader / followers", nil},
	{fault.Loss, "TARGET...", "Drop frames at random, both ways", "loss ms1 --percent 20", func(cmd *cobra.Command, s *chaos.Spec) {
		cmd.Flags().Float64Var(&s.Percent, "percent", 10, "how many of the frames")
	}},
	{fault.SlowLink, "TARGET...", "Make a machine's link slow: what it sends waits in a queue, what it gets is dropped beyond the rate", "slowlink ms1 --rate 50000",
		func(cmd *cobra.Command, s *chaos.Spec) {
			cmd.Flags().Uint64Var(&s.Rate, "rate", 100_000, "bytes a second")
		}},
	{fault.FullDisk, "TARGET...", "Fill the disk of the data directory (lab up --lying-disks)", "fulldisk leader", nil},
	{fault.SlowDisk, "TARGET...", "Make fsync slow (lab up --lying-disks)", "slowdisk leader --delay 300ms", func(cmd *cobra.Command, s *chaos.Spec) {
		cmd.Flags().DurationVar(&s.Delay, "delay", 300*time.Millisecond, "added to each fsync; a tenth of it to each write")
	}},
	{fault.HungDisk, "TARGET...", "Let the disk of the data directory hang (lab up --lying-disks)", "hungdisk mm2 --for 10s", nil},
	{fault.Clock, "TARGET...", "Set the service's clock wrong (needs the test build: make build-skewed)", "clock mm1 --offset=-2m", func(cmd *cobra.Command, s *chaos.Spec) {
		cmd.Flags().DurationVar(&s.Offset, "offset", 0, "how far it is ahead")
	}},
	{fault.Address, "TARGET...", "Give machines other addresses, as a DHCP server may; at the deadline they have their own again", "readdress ms1 --to 192.168.56.77", func(cmd *cobra.Command, s *chaos.Spec) {
		cmd.Flags().StringVar(&s.To, "to", "", "the new address of a single machine (default: a free one)")
	}},
}

func (a *app) faultCmd(v chaosVerb) *cobra.Command {
	var dir, risk string
	s := chaos.Spec{Kind: v.kind}
	cmd := &cobra.Command{Use: v.kind + " " + v.args, Short: v.short, Example: "  appliance chaos " + v.example, Args: cobra.MinimumNArgs(1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if risk != "" && risk != chaos.RiskQuorum {
			return model.Errorf(model.CodeInvalid, "there is no risk %q to accept", risk).Try("--accept-risk=%s", chaos.RiskQuorum)
		}
		s.Groups, s.Risk = lab.ParseGroups(args), risk == chaos.RiskQuorum
		c, err := a.chaosControl(dir)
		if err != nil {
			return err
		}
		act, err := c.Begin(cmd.Context(), s)
		if err != nil {
			return err
		}
		return a.show(act, func(p *ui.Printer) {
			p.Line("%s until %s: 'appliance chaos heal' ends it before", act.Title, act.Until.Format(time.TimeOnly))
		})
	}
	length := 30 * time.Second
	if v.kind == fault.Kill {
		length = time.Second
	}
	f := cmd.Flags()
	f.DurationVar(&s.For, "for", length, "when it ends by itself")
	f.StringVar(&risk, "accept-risk", "", "'lose-quorum' allows to leave the masters without a majority")
	f.StringVar(&dir, "dir", lab.DefaultDir, "directory of the lab")
	if v.flags != nil {
		v.flags(cmd, &s)
	}
	return cmd
}

func (a *app) chaosControl(dir string) (*chaos.Control, error) {
	l, err := lab.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return chaos.NewControl(l, uint64(time.Now().UnixNano()))
}

func (a *app) chaosHealCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "heal", Short: "End every fault on every machine now", Args: noArgs,
		Long: `End every fault on every machine now, and remove what a crash may have left:
rules of the packet filter, queues, stopped processes, lying disks.`}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.chaosControl(dir)
		if err != nil {
			return err
		}
		if err := c.Heal(cmd.Context()); err != nil {
			return err
		}
		return a.show(map[string]bool{"healed": true}, func(p *ui.Printer) { p.Line("no fault is left") })
	}
	cmd.Flags().StringVar(&dir, "dir", lab.DefaultDir, "directory of the lab")
	return cmd
}

func (a *app) chaosListCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "list", Short: "List the faults in force and when they end", Args: noArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.chaosControl(dir)
		if err != nil {
			return err
		}
		list, err := c.List(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(list, func(p *ui.Printer) {
			if len(list) == 0 {
				p.Line("no faults are in force")
				return
			}
			p.Row("FAULT", "MACHINES", "ENDS IN")
			for _, f := range list {
				p.Row(f.Title, strings.Join(f.Machines, " "), time.Until(f.Until).Round(time.Second))
			}
		})
	}
	cmd.Flags().StringVar(&dir, "dir", lab.DefaultDir, "directory of the lab")
	return cmd
}

func (a *app) chaosScenariosCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "scenarios", Short: "List the scenarios", Args: noArgs}
	cmd.RunE = func(*cobra.Command, []string) error {
		return a.show(chaos.Scenarios, func(p *ui.Printer) {
			p.Row("SCENARIO", "TAKES", "WHAT")
			for _, sc := range chaos.Scenarios {
				what := sc.What
				if sc.Skewed {
					what += " (test build: make build-skewed)"
				}
				p.Row(sc.Name, sc.Length, what)
			}
		})
	}
	return cmd
}

func (a *app) chaosRunCmd() *cobra.Command {
	o := chaos.Options{Out: a.errOut}
	cmd := &cobra.Command{Use: "run SCENARIO...", Short: "Run scenarios under load, and check what must hold", Args: cobra.MinimumNArgs(1),
		Long: `Run scenarios under load, and check what must hold while they run and after:
no acknowledged write lost, linearizable keys, one owner per task, no container
twice, no over-commit, no two holders of a lease or of the virtual address, an
audit log that verifies, a leader with a sick disk that hands over within 5 s,
one-way links and wrong clocks that net and doctor show while they last,
everything at its target within 60 s of the end, and then the same state on all
nodes. 'short' is the set that 'make chaos' runs, 'all' is all, and 'calm' are
those in which no process dies. If no lab is up, one is started and removed
afterwards. The exit code is 1 if anything was violated, if memory, goroutines
or files grew, and if the run was too quiet to mean something, had faults
without effect, or a step that was refused each time.`,
		Example: "  appliance chaos run leader-kill-every-10s --for 2m\n  appliance chaos run all --for 1h --seed 7"}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Scenarios = args
		rep, err := chaos.Run(cmd.Context(), o)
		if err != nil {
			return err
		}
		if err := a.show(rep, func(p *ui.Printer) { p.Line("%s", rep.Text()) }); err != nil {
			return err
		}
		if !rep.Good() {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	f := cmd.Flags()
	f.DurationVar(&o.For, "for", 0, "how long: of one scenario its length, of several the time for rounds of all in random orders (default: each once)")
	f.Uint64Var(&o.Seed, "seed", 1, "what is chosen at random follows from it")
	f.StringVar(&o.Dir, "dir", lab.DefaultDir, "directory of the lab")
	f.StringVar(&o.Name, "name", lab.DefaultName, "name of a lab that has to be started")
	f.StringVar(&o.ClusterFile, "cluster", "", "another description of the machines of a lab that has to be started")
	f.StringVar(&o.App, "app", "cmd/notejam", "directory of the app that is put under load")
	f.BoolVar(&o.Keep, "keep", false, "do not remove a lab that was started for the run")
	return cmd
}
