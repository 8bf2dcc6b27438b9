package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"appliance/node/api"
	"appliance/node/lab"
	"appliance/node/lab/story"
	"appliance/node/model"
	"appliance/vagrant"
)

// Options say what to run and where.
type Options struct {
	Dir         string        // of the lab; default lab.DefaultDir
	Name        string        // of a lab that has to be started; default lab.DefaultName
	ClusterFile string        // of a lab that has to be started
	Binary      string        // the command line; default this executable
	App         string        // directory of the app that is put under load
	Scenarios   []string      // names; "short" and "calm" are those sets, "all" is all that can run
	For         time.Duration // with one scenario its length; with several the time for rounds of all in random orders, 0: each once
	Seed        uint64
	Keep        bool      // do not remove a lab that was started for the run
	Out         io.Writer // progress
}

// run is one run under way.
type run struct {
	o       Options
	lab     *lab.Lab
	cluster vagrant.Cluster
	control *Control
	wrong   *verdicts
	watch   *watch
	load    *load
	rand    *rand.Rand
	began   time.Time
	next    int        // machine of "next"
	nextM   int        // master of "nextmaster"
	round   []Scenario // what is left of this round, in its order
	report  *Report
	sizes   []map[string]Size
	calm    time.Duration // since when only calm scenarios ran
	oldKeys []string      // that a rotation under way replaces
	steps   map[stepKey]*stepTally
	asked   []stepKey // the keys of steps, in their order
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.o.Out, "%7.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// Run runs scenarios. If no lab is up at the directory it starts one and
// removes it afterwards. The error is of the run; what was found is in the
// report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Dir == "" {
		o.Dir = lab.DefaultDir
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	list, err := choose(o.Scenarios)
	if err != nil {
		return nil, err
	}
	if o.For < 0 || o.For > 24*time.Hour || o.For > 0 && o.For < 5*time.Second {
		return nil, model.Errorf(model.CodeInvalid, "a run of %s is not possible", o.For).Try("--for takes from 5s to 24h")
	}
	r := &run{o: o, rand: rand.New(rand.NewPCG(o.Seed, 2)), began: time.Now(), report: &Report{Seed: o.Seed}}
	r.wrong = newVerdicts(r.say)
	remove, err := r.machines(ctx)
	defer remove()
	if err != nil {
		return nil, err
	}
	return r.all(ctx, list)
}

func choose(names []string) (list []Scenario, err error) {
	for _, name := range names {
		switch name {
		case "short", "calm":
			set := Short()
			if name == "calm" {
				set = Calm()
			}
			for _, n := range set {
				sc, _ := Find(n)
				list = append(list, sc)
			}
		case "all":
			list = append(list, Scenarios...)
		default:
			sc, ok := Find(name)
			if !ok {
				return nil, model.Errorf(model.CodeInvalid, "there is no scenario %q", name).Try("appliance chaos scenarios")
			}
			list = append(list, sc)
		}
	}
	if len(list) == 0 {
		return nil, model.Errorf(model.CodeInvalid, "no scenario is named").Try("appliance chaos scenarios")
	}
	return list, nil
}

// machines opens the lab, or starts one.
func (r *run) machines(ctx context.Context) (remove func(), err error) {
	remove = func() {}
	r.lab, err = lab.Open(r.o.Dir, slog.New(slog.DiscardHandler))
	if errors.Is(err, lab.ErrDown) {
		if r.o.Binary == "" {
			if r.o.Binary, err = os.Executable(); err != nil {
				return remove, err
			}
		}
		cluster, err := vagrant.LoadFile(r.o.ClusterFile)
		if err != nil {
			return remove, err
		}
		o := lab.Options{Dir: r.o.Dir, Name: r.o.Name, Binary: r.o.Binary, Lying: true}
		r.say("starting a lab of %d machines", len(cluster.Machines))
		if r.lab, err = lab.Up(ctx, cluster, o); err != nil {
			return remove, err
		}
		if !r.o.Keep {
			remove = func() {
				if err := lab.Down(context.WithoutCancel(ctx), o); err != nil {
					r.say("the lab could not be removed: %v", err)
				}
			}
		}
		if err := r.lab.Bootstrap(ctx, nil); err != nil {
			return remove, err
		}
	} else if err != nil {
		return remove, err
	}
	if r.control, err = NewControl(r.lab, r.o.Seed); err != nil {
		return remove, err
	}
	r.cluster = r.control.cluster
	return remove, r.app(ctx)
}

// app makes sure that there is something to visit.
func (r *run) app(ctx context.Context) error {
	var nodes []*node
	for _, m := range r.cluster.Machines {
		nodes = append(nodes, newNode(r.lab, m.Name))
	}
	r.watch = &watch{lab: r.lab, cluster: r.cluster, nodes: nodes, wrong: r.wrong, owners: map[string]string{}}
	r.load = &load{cluster: r.cluster, nodes: nodes, crowd: newCrowd(), wrong: r.wrong,
		kv: newDurable(nodes, r.wrong), lin: newLinear(nodes, r.wrong), leases: &leases{nodes: nodes, wrong: r.wrong}}
	if err := r.control.Heal(ctx); err != nil {
		return err
	}
	st, err := r.control.Look(ctx)
	if err == nil && slices.ContainsFunc(st.Apps, func(a api.AppView) bool { return a.ID == appID }) {
		return nil
	}
	r.say("building and deploying %s", appName)
	s, err := story.New(story.Options{Dir: r.o.Dir, Name: r.o.Name, ClusterFile: r.o.ClusterFile, Binary: r.o.Binary, App: r.o.App, Out: io.Discard})
	if err != nil {
		return err
	}
	return s.Prepare(ctx)
}

// all runs the scenarios under load.
func (r *run) all(ctx context.Context, list []Scenario) (*Report, error) {
	if err := again(ctx, settleTime, r.watch.settled); err != nil {
		return nil, fmt.Errorf("the lab is not well before any fault: %w", err)
	}
	// The checkers know of no key that an earlier run left.
	if _, _, err := r.load.nodes[0].do(ctx, http.MethodDelete, "/v1/kv/chaos?recurse", ""); err != nil {
		return nil, fmt.Errorf("remove the keys of an earlier run: %w", err)
	}
	if err := r.fill(ctx); err != nil {
		return nil, err
	}
	look, stopLook := context.WithCancel(ctx)
	defer stopLook()
	looked := make(chan struct{})
	go func() { r.watch.run(look); close(looked) }()
	stopLoad := r.load.start(ctx)
	defer func() { stopLoad() }()
	refilled := false
	for i := 0; ctx.Err() == nil; i++ {
		if r.calmNow() && !refilled {
			// A process that has read its state needs less than one in which all of it was replaced.
			refilled = true
			if err := r.fill(ctx); err != nil {
				return nil, err
			}
		}
		sc, length, ok := r.choice(list, i)
		if !ok {
			break
		}
		if err := r.scenario(ctx, sc, length); err != nil {
			r.heal(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		r.heal(context.WithoutCancel(ctx))
		return nil, err
	}
	stopLoad()
	stopLook()
	<-looked
	if err := r.load.setScaleSure(ctx); err != nil {
		r.wrong.violate(targetRule, "%v", err)
	}
	r.recover(ctx)
	if n := len(r.report.Parts); n > 0 {
		r.readBack(ctx, &r.report.Parts[n-1]) // what came after its own check
	}
	r.watch.audit(ctx, 0)
	r.watch.same(ctx)
	r.watch.alarms(ctx)
	r.finish()
	return r.report, nil
}

// choice is the i-th scenario: each once, or round after round of all in a
// random order until the time is over. The last third of a long run has only
// scenarios in which no process dies, so that processes can be seen to live.
func (r *run) choice(list []Scenario, i int) (Scenario, time.Duration, bool) {
	switch {
	case len(list) == 1:
		length := list[0].Length
		if r.o.For > 0 {
			length = r.o.For
		}
		return list[0], length, i == 0
	case r.o.For == 0:
		if i >= len(list) {
			return Scenario{}, 0, false
		}
		return list[i], list[i].Length, true
	}
	if time.Since(r.began) > r.o.For-time.Minute {
		return Scenario{}, 0, false
	}
	if r.calmNow() {
		deadly := func(sc Scenario) bool { return !sc.calm() }
		if calm := slices.DeleteFunc(slices.Clone(list), deadly); len(calm) > 0 {
			list, r.round = calm, slices.DeleteFunc(r.round, deadly)
		}
	}
	if len(r.round) == 0 {
		r.round = slices.Clone(list)
		r.rand.Shuffle(len(list), func(i, j int) { r.round[i], r.round[j] = r.round[j], r.round[i] })
	}
	sc := r.round[0]
	r.round = r.round[1:]
	return sc, sc.Length, true
}

// calmNow says whether the last third of a long run has begun.
func (r *run) calmNow() bool {
	return r.o.For >= calmFrom && time.Since(r.began) > r.o.For*2/3
}
