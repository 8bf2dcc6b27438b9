package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"appliance/node/lab"
	"appliance/vagrant"
)

// Options say where the story takes place. The zero value is the demo's lab.
type Options struct {
	Dir         string // of the lab; default lab.DefaultDir
	Name        string // of the lab; default lab.DefaultName
	ClusterFile string // default: the built-in description of the seven machines
	Binary      string // the executable of the command line; default this one
	App         string // directory with Notejam's appliance.yaml; default "cmd/notejam"
	Out         io.Writer
	Terminal    bool // Out is a terminal: headings may stand out
}

// Story is one run. Steps are run in order, by one goroutine.
type Story struct {
	o       Options
	cluster vagrant.Cluster
	lab     *lab.Lab // after the step "machines"
	out     *printer
	apis    map[string]*apiClient
	digest  string // of Notejam, after the step "image"
	user    *visitor
	note    string // the name of the user's note
	marks   []Mark
}

// Mark is one measured time with what was promised for it.
type Mark struct {
	What  string        `json:"what"`
	Took  time.Duration `json:"took_ns"`
	Limit time.Duration `json:"limit_ns,omitempty"` // 0: none
	Note  string        `json:"note,omitempty"`
}

// Step is a chapter.
type Step struct {
	Name  string // short, for tests
	Title string
	Run   func(ctx context.Context) error
}

// The names of the demo's app. Tests of other apps are not the story's.
const (
	appName    = "notejam"
	envTest    = "test"
	envProd    = "production"
	stepTime   = 60 * time.Second // bounds every wait: a healthy lab needs a fraction
	lookEvery  = 20 * time.Millisecond
	firstUsers = 3 // instances that the app file asks for
)

// New returns a story that has not begun.
func New(o Options) (*Story, error) {
	if o.Dir == "" {
		o.Dir = lab.DefaultDir
	}
	if o.Name == "" {
		o.Name = lab.DefaultName
	}
	if o.App == "" {
		o.App = "cmd/notejam"
	}
	var err error
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if o.App, err = filepath.Abs(o.App); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.App, "appliance.yaml")); err != nil {
		return nil, fmt.Errorf("the demo's app is not there: %w: run this in the project's directory, or name the app's directory", err)
	}
	s := &Story{o: o, out: &printer{w: o.Out, bold: o.Terminal}, apis: map[string]*apiClient{}}
	s.cluster, err = vagrant.LoadFile(o.ClusterFile)
	return s, err
}

// Steps are the chapters in their order.
func (s *Story) Steps() []Step {
	return []Step{
		{"machines", "Seven machines become one cluster", s.machines},
		{"image", "An image without Docker, in the cluster's own registry", s.image},
		{"deploy", "Into the test environment", s.deploy},
		{"session", "One session and one database behind all instances", s.session},
		{"promote", "The same image into production", s.promote},
		{"scale", "More and fewer instances under load", s.scale},
		{"vip", "The machine that holds the virtual address dies", s.loseVIP},
		{"leader", "The leader is killed", s.loseLeader},
		{"agent", "A machine with instances loses power", s.loseAgent},
	}
}

// Demo runs all steps and says how to look around.
func (s *Story) Demo(ctx context.Context) error {
	began := time.Now()
	s.out.line("Every command below is for you to repeat; appliance is %s.", s.o.Binary)
	for i, step := range s.Steps() {
		s.out.heading("%d. %s", i+1, step.Title)
		if err := step.Run(ctx); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			s.out.line("")
			return fmt.Errorf("broken promise in step %d (%s): %w (the lab stays up for a look: appliance status, appliance lab logs MACHINE; remove it with: make demo-down)", i+1, step.Name, err)
		}
	}
	s.out.heading("Measured")
	s.PrintMarks()
	s.out.line("the whole story took %s", short(time.Since(began)))
	s.howToLook()
	return nil
}

// Marks are the times measured so far.
func (s *Story) Marks() []Mark { return s.marks }

// Lab is the running lab, nil before the first step.
func (s *Story) Lab() *lab.Lab { return s.lab }

// mark keeps a time and fails if it is over the limit.
func (s *Story) mark(what string, took, limit time.Duration, note string) error {
	s.marks = append(s.marks, Mark{what, took, limit, note})
	if limit > 0 && took > limit {
		return fmt.Errorf("%s: took %s, promised is less than %s", what, short(took), short(limit))
	}
	promise := ""
	if limit > 0 {
		promise = ", promised " + short(limit)
	}
	s.out.ok("%s: %s%s", what, short(took), promise)
	return nil
}

// open gets a handle on the lab once it is up.
func (s *Story) open() error {
	l, err := lab.Open(s.o.Dir, slog.New(slog.DiscardHandler))
	s.lab = l
	return err
}

// vip is where the apps are.
func (s *Story) vip() string { return net.JoinHostPort(s.cluster.VIP.String(), "80") }

// addr is a machine's address.
func (s *Story) addr(machine string) string {
	for _, m := range s.cluster.Machines {
		if m.Name == machine {
			return m.Address.String()
		}
	}
	return ""
}

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
