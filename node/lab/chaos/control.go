package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"appliance/node/lab"
	"appliance/node/lab/fault"
	"appliance/node/model"
	"appliance/vagrant"
)

// The kinds of faults that are not of package fault: they are made from
// outside of the machine, or of several of its kinds.
const (
	Partition = "partition" // groups of machines are cut from each other
	OneWay    = "oneway"    // what the first group sends to the second is dropped
	PowerOff  = "poweroff"  // the machine ends at once, with all in it
)

// kinds are all single faults.
var kinds = []string{fault.Kill, fault.Pause, PowerOff, Partition, OneWay, fault.Loss, fault.SlowLink, fault.FullDisk, fault.SlowDisk, fault.HungDisk, fault.Clock, fault.Address}

// RiskQuorum is the name of the danger that the masters lose their majority.
const RiskQuorum = "lose-quorum"

// Spec asks for one fault.
type Spec struct {
	Kind    string
	Groups  [][]string // of machines or selectors; only partition and oneway take several
	For     time.Duration
	Percent float64       // loss
	Rate    uint64        // slowlink, bytes per second
	Delay   time.Duration // slowdisk
	Offset  time.Duration // clock
	To      string        // readdress of one machine: its new address; "": a free one
	Risk    bool          // the masters may lose their majority
}

// Active is a fault in force.
type Active struct {
	ID       string    `json:"id"`
	Title    string    `json:"title"`
	Machines []string  `json:"machines"`
	Until    time.Time `json:"until"`

	groups [][]string    // of machines
	offset time.Duration // of a clock
}

// Control begins and ends faults of one lab. Safe for concurrent use by
// several processes, but for the look at the quorum.
type Control struct {
	lab     *lab.Lab
	cluster vagrant.Cluster
	rand    *rand.Rand // for the selectors; used by one goroutine
}

// NewControl returns the control of a running lab.
func NewControl(l *lab.Lab, seed uint64) (*Control, error) {
	c, err := l.Cluster()
	return &Control{lab: l, cluster: c, rand: rand.New(rand.NewPCG(seed, 1))}, err
}

// Begin makes a fault, or nothing if it returns an error.
func (c *Control) Begin(ctx context.Context, s Spec) (Active, error) {
	groups, err := c.resolve(ctx, s.Groups)
	if err != nil {
		return Active{}, err
	}
	s.Groups = groups
	lying, err := c.lab.Lying()
	if err != nil {
		return Active{}, err
	}
	if err := s.check(lying); err != nil {
		return Active{}, err
	}
	var moves map[string]fault.Move
	if s.Kind == fault.Address {
		if moves, s.To, err = c.moves(s.Groups[0], s.To); err != nil {
			return Active{}, err
		}
	}
	plan, err := c.plan(s, moves)
	if err != nil {
		return Active{}, err
	}
	if !s.Risk {
		if err := c.keepsQuorum(ctx, plan); err != nil {
			return Active{}, err
		}
	}
	return c.make(ctx, s, plan)
}

// check refuses what makes no sense. Its groups are resolved.
func (s Spec) check(lying bool) error {
	bad := func(format string, args ...any) *model.Error { return model.Errorf(model.CodeInvalid, format, args...) }
	several := s.Kind == Partition || s.Kind == OneWay
	switch {
	case !slices.Contains(kinds, s.Kind):
		return bad("there is no fault %q", s.Kind).Try("the faults are %s", strings.Join(kinds, ", "))
	case len(s.Groups) == 0 || len(s.Groups[0]) == 0:
		return bad("%s needs a target", s.Kind).Try("name a machine, or leader, vip, masters, agents, all")
	case s.Kind == OneWay && len(s.Groups) != 2:
		return bad("oneway needs two groups of machines").Try("appliance chaos oneway mm1 / mm2 mm3")
	case !several && len(s.Groups) > 1:
		return bad("%s takes no groups of machines", s.Kind).Try("leave the slash out")
	case s.For <= 0 || s.For > fault.MaxTime:
		return bad("a fault of %s cannot be made", s.For).Try("--for takes more than 0 and at most %s", fault.MaxTime)
	}
	seen := map[string]bool{}
	for _, g := range s.Groups {
		for _, m := range g {
			if seen[m] {
				return bad("%s is named twice", m)
			}
			seen[m] = true
			if m == hostName && !several {
				return bad("the host can only be cut from machines")
			}
		}
	}
	switch {
	case s.Kind == fault.Loss && (s.Percent <= 0 || s.Percent > 100):
		return bad("loss of %g %% cannot be made", s.Percent).Try("--percent takes more than 0 and at most 100")
	case s.Kind == fault.SlowDisk && (s.Delay <= 0 || s.Delay > time.Minute):
		return bad("a disk with a delay of %s cannot be made", s.Delay).Try("--delay takes more than 0 and at most 1m")
	case s.Kind == fault.SlowLink && (s.Rate < 1000 || s.Rate > 1<<30):
		return bad("a link of %d bytes a second cannot be made", s.Rate).Try("--rate takes from 1000 to %d", 1<<30)
	case s.Kind == fault.Clock && s.Offset == 0:
		return bad("a clock that is off by nothing is right").Try("say by how much: --offset=-30s")
	case s.To != "" && len(s.Groups[0]) != 1:
		return bad("%d machines cannot all have the address %s", len(s.Groups[0]), s.To).Try("leave --to out: each gets a free one")
	}
	if !lying && slices.Contains([]string{fault.FullDisk, fault.SlowDisk, fault.HungDisk}, s.Kind) {
		return bad("the machines of this lab have honest disks").Because("a lab is started with or without lying ones").
			Try("appliance lab down, then appliance lab up --lying-disks")
	}
	return nil
}

// hostName stands for the host in a group.
const hostName = "host"

// plan says what each machine is to suffer. Moves are those of readdress.
func (c *Control) plan(s Spec, moves map[string]fault.Move) (map[string]fault.Fault, error) {
	now := time.Now()
	group := fault.NewID()
	base := fault.Fault{Kind: s.Kind, Length: s.For, Until: now.Add(s.For), Group: group, Title: s.title(), Percent: s.Percent, Rate: s.Rate, Delay: s.Delay, Offset: s.Offset}
	plan := map[string]fault.Fault{}
	if s.Kind != Partition && s.Kind != OneWay {
		for _, m := range s.Groups[0] {
			f := base
			f.ID = fault.NewID()
			if mv, ok := moves[m]; ok {
				f.Move = &mv
			}
			plan[m] = f
		}
		return plan, nil
	}
	groups := s.Groups
	if len(groups) == 1 { // cut from every other machine
		var rest []string
		for _, m := range c.cluster.Machines {
			if !slices.Contains(groups[0], m.Name) {
				rest = append(rest, m.Name)
			}
		}
		groups = [][]string{groups[0], rest}
	}
	base.Kind = fault.Cut
	drop := func(from, to string) error { // what from sends to to
		at, other := to, from
		if to == hostName {
			at, other = from, to
		}
		mac, err := c.lab.HardwareAddr(other)
		if err != nil {
			return err
		}
		f, ok := plan[at]
		if !ok {
			f = base
			f.ID = fault.NewID()
		}
		if to == hostName {
			f.Out = append(f.Out, mac)
		} else {
			f.In = append(f.In, mac)
		}
		plan[at] = f
		return nil
	}
	for i, g := range groups {
		for k, other := range groups {
			if k == i || s.Kind == OneWay && k < i {
				continue
			}
			for _, a := range g {
				for _, b := range other {
					if err := drop(a, b); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return plan, nil
}

func (s Spec) title() string {
	var groups []string
	for _, g := range s.Groups {
		groups = append(groups, strings.Join(g, " "))
	}
	text := s.Kind + " " + strings.Join(groups, " / ")
	switch s.Kind {
	case fault.Loss:
		text += fmt.Sprintf(" (%g %%)", s.Percent)
	case fault.SlowLink:
		text += fmt.Sprintf(" (%d bytes/s)", s.Rate)
	case fault.SlowDisk:
		text += fmt.Sprintf(" (%s)", s.Delay)
	case fault.Clock:
		text += fmt.Sprintf(" (%s)", s.Offset)
	case fault.Address:
		text += fmt.Sprintf(" (%s)", s.To)
	}
	return text
}

// keepsQuorum refuses a plan after which no majority of the masters works.
func (c *Control) keepsQuorum(ctx context.Context, plan map[string]fault.Fault) error {
	v := newView(nil)
	owners := map[string]string{}
	for _, m := range c.cluster.Masters() {
		v.masters = append(v.masters, m.Name)
		mac, err := c.lab.HardwareAddr(m.Name)
		if err != nil {
			return err
		}
		owners[mac] = m.Name
	}
	owner := func(mac string) string { return owners[mac] }
	st, err := c.lab.Status(ctx)
	if err != nil {
		return err
	}
	for _, m := range st.Machines {
		if m.Power != "on" || m.Link != "up" || m.Loss >= deafLoss || m.Service == nil || m.Service.State == "stopped" {
			v.down[m.Name] = true
		}
		list, err := c.lab.Faults(m.Name)
		if err != nil {
			return err
		}
		for _, f := range list {
			v.suffer(m.Name, f, owner)
		}
	}
	for _, cut := range st.Cuts {
		v.cut[[2]string{cut.From, cut.To}] = true
	}
	v.heed(c.words(ctx))
	return v.allow(plan, owner)
}

// canSpare refuses if without the machines no majority of the masters works.
func (c *Control) canSpare(ctx context.Context, machines []string) error {
	return c.keepsQuorum(ctx, gone(machines))
}

// gone is a plan that takes machines away.
func gone(machines []string) map[string]fault.Fault {
	plan := map[string]fault.Fault{}
	for _, m := range machines {
		plan[m] = fault.Fault{Kind: PowerOff}
	}
	return plan
}

// make carries the plan out, on all machines at once.
func (c *Control) make(ctx context.Context, s Spec, plan map[string]fault.Fault) (Active, error) {
	a := Active{Title: s.title(), Machines: slices.Sorted(maps.Keys(plan)), groups: s.Groups, offset: s.Offset}
	type made struct {
		machine string
		err     error
	}
	done := make(chan made)
	for m, f := range plan {
		a.ID, a.Until = f.Group, f.Until
		go func() { done <- made{m, c.begin(ctx, m, f)} }()
	}
	var good []string
	var errs []error
	for range plan {
		if d := <-done; d.err != nil {
			errs = append(errs, d.err)
		} else {
			good = append(good, d.machine)
		}
	}
	if len(errs) == 0 {
		return a, nil
	}
	for _, m := range good {
		errs = append(errs, c.end(context.WithoutCancel(ctx), m, plan[m]))
	}
	return Active{}, errors.Join(errs...)
}

func (c *Control) begin(ctx context.Context, machine string, f fault.Fault) error {
	if f.Kind == PowerOff {
		return c.lab.PowerOffFor(ctx, machine, f.Until)
	}
	return c.lab.Begin(ctx, machine, f)
}

func (c *Control) end(ctx context.Context, machine string, f fault.Fault) error {
	if f.Kind == PowerOff {
		return c.lab.Start(ctx, machine)
	}
	return c.lab.EndFault(ctx, machine, f.ID)
}

// Heal ends every fault on every machine, also what nobody remembers, and
// what the lab's own fault verbs have left of the network's.
func (c *Control) Heal(ctx context.Context) error {
	done := make(chan error)
	for _, m := range c.cluster.Machines {
		go func() { done <- c.lab.EndFaults(ctx, m.Name) }()
	}
	var errs []error
	for range c.cluster.Machines {
		errs = append(errs, <-done)
	}
	return errors.Join(append(errs, c.lab.Heal())...)
}

// List returns the faults in force.
func (c *Control) List(ctx context.Context) ([]Active, error) {
	byID := map[string]*Active{}
	list := []Active{}
	st, err := c.lab.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range st.Machines {
		if !m.OffUntil.IsZero() {
			list = append(list, Active{ID: "-", Title: PowerOff + " " + m.Name, Machines: []string{m.Name}, Until: m.OffUntil})
		}
		faults, err := c.lab.Faults(m.Name)
		if err != nil {
			return nil, err
		}
		for _, f := range faults {
			if a := byID[f.Group]; a != nil {
				a.Machines = append(a.Machines, m.Name)
				continue
			}
			byID[f.Group] = &Active{ID: f.Group, Title: f.Title, Machines: []string{m.Name}, Until: f.Until}
		}
	}
	for _, a := range byID {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Active) int { return a.Until.Compare(b.Until) })
	return list, nil
}
