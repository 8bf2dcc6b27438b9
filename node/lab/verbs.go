package lab

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"appliance/vagrant"
)

// Streams are what a verb reads and writes. Nothing else of the terminal is
// touched.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Log      *slog.Logger
	Signals  <-chan os.Signal // for 'lab exec'; may be nil
}

// Verb is one command below 'appliance lab', free of any command-line
// library. Values are made anew by each Verbs call; one is used once.
type Verb struct {
	Name    string
	Args    string // for the usage line, such as "MACHINE"
	Short   string
	Long    string
	Example string
	Min     int  // least number of arguments
	Max     int  // most; -1 is no limit
	Raw     bool // flags end at the first argument, the rest is another command's
	Flags   func(*flag.FlagSet)
	// Run returns the result for --json, which may have a Text method for
	// people; nil if the verb has written its own output.
	Run func(ctx context.Context, s Streams, args []string) (any, error)
}

// ExitError is the exit code of a command that ran in a machine; it has been
// reported by the command itself.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// ExitCode is what the program should exit with.
func (e *ExitError) ExitCode() int { return e.Code }

// Done is the result of a verb that changes something.
type Done struct {
	Action   string   `json:"action"`
	Machines []string `json:"machines,omitempty"`
}

// Text is the line for people.
func (d Done) Text() string {
	if len(d.Machines) == 0 {
		return d.Action
	}
	return strings.Join(d.Machines, " ") + ": " + d.Action
}

// Verbs returns the commands of the lab. binary is the executable that 'up'
// gives to the machines; empty is the running one.
func Verbs(binary string) []Verb {
	verbs := append([]Verb{upVerb(binary), downVerb(), statusVerb(), execVerb(), logsVerb(), upgradeVerb()}, faultVerbs()...)
	return append(append(verbs, readdressVerb()), networkVerbs()...)
}

// at adds the flag that every verb has.
func at(dir *string, more func(*flag.FlagSet)) func(*flag.FlagSet) {
	return func(f *flag.FlagSet) {
		f.StringVar(dir, "dir", DefaultDir, "directory of the lab")
		if more != nil {
			more(f)
		}
	}
}

func upVerb(binary string) Verb {
	var dir, file, name string
	var bare, lying bool
	return Verb{
		Name: "up", Short: "Start the machines of vagrant/cluster.yaml on this host",
		Long: "Start the machines as network namespaces with the real binary in each, then init the first master\n" +
			"and join the others. Needs root and Linux.",
		Example: "appliance lab up",
		Flags: at(&dir, func(f *flag.FlagSet) {
			f.StringVar(&file, "cluster", "", "another description of the machines")
			f.StringVar(&name, "name", DefaultName, "name of the lab; labs side by side need their own, and their own networks")
			f.BoolVar(&lying, "lying-disks", false, "give the machines disks that 'appliance chaos' can make full, slow or hung")
			f.BoolVar(&bare, "bare", false, "start the machines only, make no cluster")
		}),
		Run: func(ctx context.Context, s Streams, _ []string) (any, error) {
			c, err := vagrant.LoadFile(file)
			if err != nil {
				return nil, err
			}
			l, err := Up(ctx, c, Options{Dir: dir, Name: name, Binary: binary, Lying: lying, Log: s.Log})
			if err != nil {
				return nil, err
			}
			if !bare {
				if err := l.Bootstrap(ctx, func(m string) { fmt.Fprintf(s.Err, "%s is in\n", m) }); err != nil {
					return nil, fmt.Errorf("%w (the machines are still up: look with 'appliance lab logs', remove them with 'appliance lab down')", err)
				}
			}
			return l.Status(ctx)
		},
	}
}

func downVerb() Verb {
	var dir string
	return Verb{
		Name: "down", Short: "Remove the lab with everything that it made",
		Long:  "Remove processes, namespaces, links, control groups and disks of the lab, also after a crash. Running it twice is fine.",
		Flags: at(&dir, nil),
		Run: func(ctx context.Context, s Streams, _ []string) (any, error) {
			if err := Down(ctx, Options{Dir: dir, Log: s.Log}); err != nil {
				return nil, err
			}
			return Done{Action: "the lab is removed"}, nil
		},
	}
}

func statusVerb() Verb {
	var dir string
	return Verb{
		Name: "status", Short: "Show the machines, their services and the faults in force",
		Flags: at(&dir, nil),
		Run: func(ctx context.Context, s Streams, _ []string) (any, error) {
			l, err := Open(dir, s.Log)
			if err != nil {
				return nil, err
			}
			return l.Status(ctx)
		},
	}
}

func execVerb() Verb {
	var dir string
	return Verb{
		Name: "exec", Args: "MACHINE COMMAND [ARGUMENT...]", Short: "Run a command in a machine", Min: 2, Max: -1, Raw: true,
		Long:    "Run a command in a machine with this terminal's input and output. The exit code is the command's.",
		Example: "appliance lab exec ms1 curl -s http://app-test/",
		Flags:   at(&dir, nil),
		Run: func(ctx context.Context, s Streams, args []string) (any, error) {
			l, err := Open(dir, s.Log)
			if err != nil {
				return nil, err
			}
			code, err := l.Exec(ctx, args[0], Command{Args: args[1:], Env: terminal(), Stdin: s.In, Stdout: s.Out, Stderr: s.Err, Signals: s.Signals})
			if err == nil && code != 0 {
				err = &ExitError{code}
			}
			return nil, err
		},
	}
}

// terminal is the part of the caller's environment that belongs to its screen.
func terminal() []string {
	var env []string
	for _, k := range []string{"TERM", "COLORTERM", "NO_COLOR", "COLUMNS"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

func logsVerb() Verb {
	var dir string
	var follow bool
	var lines int
	return Verb{
		Name: "logs", Args: "MACHINE", Short: "Show what a machine's service has written", Min: 1, Max: 1,
		Flags: at(&dir, func(f *flag.FlagSet) {
			f.BoolVar(&follow, "follow", false, "go on until interrupted")
			f.IntVar(&lines, "lines", 100, "how many of the last lines")
		}),
		Run: func(ctx context.Context, s Streams, args []string) (any, error) {
			l, err := Open(dir, s.Log)
			if err != nil {
				return nil, err
			}
			return nil, l.Logs(ctx, args[0], lines, follow, s.Out)
		},
	}
}

// each makes a verb that does one thing to each machine it is given.
func each(name, short, action string, more func(*flag.FlagSet), do func(context.Context, *Lab, string) error) Verb {
	var dir string
	return Verb{
		Name: name, Args: "MACHINE...", Short: short, Min: 1, Max: -1, Flags: at(&dir, more),
		Run: func(ctx context.Context, s Streams, args []string) (any, error) {
			l, err := Open(dir, s.Log)
			if err != nil {
				return nil, err
			}
			for _, m := range args {
				if err := do(ctx, l, m); err != nil {
					return nil, err
				}
			}
			return Done{action, args}, nil
		},
	}
}

func faultVerbs() []Verb {
	var stay bool
	return []Verb{
		each("start", "Power machines on and start their service", "started", nil,
			func(ctx context.Context, l *Lab, m string) error { return l.Start(ctx, m) }),
		each("stop", "Stop the service of machines in order", "service stopped", nil,
			func(ctx context.Context, l *Lab, m string) error { return l.Stop(ctx, m) }),
		each("kill", "Kill the service of machines (SIGKILL); it restarts after a second", "service killed",
			func(f *flag.FlagSet) { f.BoolVar(&stay, "stay", false, "do not restart it") },
			func(ctx context.Context, l *Lab, m string) error { return l.Kill(ctx, m, stay) }),
		each("poweroff", "End machines at once with all that runs in them", "powered off", nil,
			func(ctx context.Context, l *Lab, m string) error { return l.PowerOff(ctx, m) }),
		each("pause", "Freeze machines", "paused", nil,
			func(_ context.Context, l *Lab, m string) error { return l.Pause(m) }),
		each("resume", "Let paused machines go on", "resumed", nil,
			func(_ context.Context, l *Lab, m string) error { return l.Resume(m) }),
	}
}

func networkVerbs() []Verb {
	var oneWay bool
	return []Verb{
		change("link", "MACHINE up|down", "Plug or pull a machine's network cable", 2, 2, nil, func(l *Lab, args []string) (Done, error) {
			if args[1] != "up" && args[1] != "down" {
				return Done{}, fmt.Errorf("link %q: say up or down", args[1])
			}
			return Done{"link " + args[1], args[:1]}, l.Link(args[0], args[1] == "up")
		}),
		change("partition", "MACHINE... [/ MACHINE...]...", "Cut groups of machines from each other", 1, -1,
			func(f *flag.FlagSet) {
				f.BoolVar(&oneWay, "one-way", false, "drop only what the first group sends to the second")
			},
			func(l *Lab, args []string) (Done, error) {
				groups := ParseGroups(args)
				if !oneWay {
					return Done{Action: "network cut: 'appliance lab heal' ends it"}, l.Partition(groups...)
				}
				if len(groups) != 2 {
					return Done{}, fmt.Errorf("--one-way needs two groups: 'appliance lab partition --one-way mm1 / mm2'")
				}
				return Done{Action: "network cut one way: 'appliance lab heal' ends it"}, l.CutOneWay(groups[0], groups[1])
			}),
		change("loss", "PERCENT MACHINE...", "Drop frames of machines at random", 2, -1, nil, func(l *Lab, args []string) (Done, error) {
			percent, err := strconv.ParseFloat(strings.TrimSuffix(args[0], "%"), 64)
			if err != nil {
				return Done{}, fmt.Errorf("loss %q is not a number of percent", args[0])
			}
			return Done{fmt.Sprintf("%g %% loss", percent), args[1:]}, l.Lose(percent, args[1:]...)
		}),
		change("heal", "", "End all cuts, loss and pulled cables", 0, 0, nil, func(l *Lab, _ []string) (Done, error) {
			return Done{Action: "the network is whole"}, l.Heal()
		}),
	}
}

func change(name, args, short string, least, most int, more func(*flag.FlagSet), do func(*Lab, []string) (Done, error)) Verb {
	var dir string
	return Verb{
		Name: name, Args: args, Short: short, Min: least, Max: most, Flags: at(&dir, more),
		Run: func(_ context.Context, s Streams, args []string) (any, error) {
			l, err := Open(dir, s.Log)
			if err != nil {
				return nil, err
			}
			d, err := do(l, args)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	}
}

// ParseGroups reads "mm1 mm2 / ms1,ms2": slashes part groups, commas and
// spaces part machines.
func ParseGroups(args []string) [][]string {
	var groups [][]string
	for _, g := range strings.Split(strings.Join(args, " "), "/") {
		machines := strings.FieldsFunc(g, func(r rune) bool { return r == ' ' || r == ',' })
		if len(machines) > 0 {
			groups = append(groups, machines)
		}
	}
	return groups
}
