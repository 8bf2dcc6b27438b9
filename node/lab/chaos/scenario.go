package chaos

import (
	"slices"
	"strings"
	"time"

	"appliance/node/lab/fault"
)

// Scenario is a story of faults, as data.
type Scenario struct {
	Name   string        `json:"name"`
	What   string        `json:"what"`
	Length time.Duration `json:"length_ns"` // without the time to settle
	Steps  []Step        `json:"-"`
	Skewed bool          `json:"test_build,omitempty"` // needs a binary with a clock that can be wrong
	Long   bool          `json:"long,omitempty"`       // not of the short set
}

// Step is one fault, or one again and again.
type Step struct {
	At    time.Duration // from the beginning of the scenario
	Every time.Duration // again until the scenario's length; 0: once
	Do    string        // a kind of fault, or restart, wipe or rotate
	On    string        // groups as on the command line; "next" is each machine in turn, "nextmaster" each master
	For   time.Duration
	Spec  Spec // percent, rate, delay, offset, risk
	// Yields says that the machine leads, and that another master must do so soon.
	Yields bool
	// Shown says that net and doctor must show the fault while it lasts (one-way, clock).
	Shown bool
}

// What a step can do beyond single faults.
const (
	restart = "restart" // the service is stopped in order and started
	wipe    = "wipe"    // the machine's disk is lost; it joins again with a token
	rotate  = "rotate"  // all keys of the cluster are replaced
)

const s = time.Second

var risk = Spec{Risk: true}

// Scenarios are all that can be run.
var Scenarios = []Scenario{
	{"leader-kill-every-10s", "the leader is killed every 10 s", 24 * s, []Step{
		{At: 2 * s, Every: 10 * s, Do: fault.Kill, On: "leader", For: s}}, false, false},
	{"rolling-pause", "each machine in turn stops for 2.5 s, as in a long collection or a live migration", 26 * s, []Step{
		{At: 1 * s, Every: 3500 * time.Millisecond, Do: fault.Pause, On: "next", For: 2500 * time.Millisecond}}, false, false},
	{"majority-partition", "the leader is cut from the other masters and half of the agents, then all masters from each other", 26 * s, []Step{
		{At: 2 * s, Do: Partition, On: "leader ms1 ms3 / followers ms2 ms4", For: 10 * s},
		{At: 16 * s, Do: Partition, On: "mm1 / mm2 / mm3", For: 6 * s, Spec: risk}}, false, false},
	{"vip-isolated", "the holder of the virtual address is cut from all machines, but not from its visitors", 18 * s, []Step{
		{At: 2 * s, Every: 9 * s, Do: Partition, On: "vip", For: 6 * s}}, false, false},
	{"agent-flapping", "an agent is cut off for 2 s every 4 s", 18 * s, []Step{
		{At: 1 * s, Every: 4 * s, Do: Partition, On: "ms1", For: 2 * s}}, false, false},
	{"all-masters-down", "all masters are down at once for 10 s", 16 * s, []Step{
		{At: 2 * s, Do: fault.Kill, On: "masters", For: 10 * s, Spec: risk}}, false, false},
	{"power-loss-of-everything", "every machine loses power at once", 10 * s, []Step{
		{At: 2 * s, Do: PowerOff, On: "all", For: 4 * s, Spec: risk}}, false, false},
	{"slow-disk-leader", "the leader's disk gets slow", 20 * s, []Step{
		{At: 2 * s, Every: 9 * s, Do: fault.SlowDisk, On: "leader", Yields: true, For: 8 * s, Spec: Spec{Delay: 300 * time.Millisecond}}}, false, false},
	{"full-disk-leader", "the leader's disk is full", 20 * s, []Step{
		{At: 2 * s, Every: 9 * s, Do: fault.FullDisk, On: "leader", Yields: true, For: 8 * s}}, false, false},
	{"hung-disk-leader", "the leader's disk hangs", 20 * s, []Step{
		{At: 2 * s, Every: 9 * s, Do: fault.HungDisk, On: "leader", Yields: true, For: 8 * s}}, false, false},
	{"one-way-leader", "the leader is not heard by the others, then it does not hear them", 36 * s, []Step{
		{At: 2 * s, Do: OneWay, On: "leader / followers agents", Shown: true, For: 15 * s},
		{At: 19 * s, Do: OneWay, On: "followers agents / leader", Shown: true, For: 15 * s}}, false, false},
	{"lossy-network", "a tenth of all frames is lost on every machine", 18 * s, []Step{
		{At: 2 * s, Do: fault.Loss, On: "all", For: 14 * s, Spec: Spec{Percent: 10}}}, false, false},
	{"node-wiped", "a master and an agent lose their disks and join again", 20 * s, []Step{
		{At: 2 * s, Do: wipe, On: "ms2"},
		{At: 4 * s, Do: wipe, On: "spare"}}, false, false},
	{"restart-all", "every service is restarted in order, one after the other, as in an upgrade", 26 * s, []Step{
		{At: 1 * s, Every: 3500 * time.Millisecond, Do: restart, On: "next"}}, false, false},
	{"slow-links", "a master and an agent have slow links", 28 * s, []Step{
		{At: 2 * s, Do: fault.SlowLink, On: "follower ms2", For: 20 * s, Spec: Spec{Rate: 100_000}}}, false, true},
	{"keys-rotate", "the CA and the keys of gossip and secrets are replaced while leaders and agents are killed", 34 * s, []Step{
		{At: 2 * s, Do: rotate},
		{At: 2500 * time.Millisecond, Every: 7 * s, Do: fault.Kill, On: "leader", For: s},
		{At: 4 * s, Every: 9 * s, Do: fault.Kill, On: "agent", For: 3 * s}}, false, true},
	{"vip-killed", "the holder of the virtual address is killed again and again", 30 * s, []Step{
		{At: 2 * s, Every: 9 * s, Do: fault.Kill, On: "vip", For: 2 * s}}, false, true},
	{"agents-lose-power", "one agent after the other loses power", 40 * s, []Step{
		{At: 2 * s, Every: 12 * s, Do: PowerOff, On: "agent", For: 6 * s}}, false, true},
	{"storm", "kills, pauses, cuts and loss on machines at random, several at once", 50 * s, []Step{
		{At: 1 * s, Every: 7 * s, Do: fault.Kill, On: "machine", For: 2 * s},
		{At: 3 * s, Every: 9 * s, Do: fault.Pause, On: "machine", For: 4 * s},
		{At: 5 * s, Every: 11 * s, Do: Partition, On: "machine", For: 5 * s},
		{At: 6 * s, Every: 13 * s, Do: OneWay, On: "machine / machine", For: 6 * s},
		{At: 2 * s, Every: 17 * s, Do: fault.Loss, On: "machine", For: 8 * s, Spec: Spec{Percent: 20}}}, false, true},
	{"address-change", "a master and an agent get other addresses, and their own ones again; then the next ones", 58 * s, []Step{
		{At: 2 * s, Every: 28 * s, Do: fault.Address, On: "nextmaster", For: 12 * s},
		{At: 5 * s, Every: 28 * s, Do: fault.Address, On: "agent", For: 12 * s}}, false, true},
	{"clock-skew", "the clocks of the leader and an agent are minutes off", 34 * s, []Step{
		{At: 2 * s, Do: fault.Clock, On: "leader", Shown: true, For: 14 * s, Spec: Spec{Offset: 2 * time.Minute}},
		{At: 18 * s, Do: fault.Clock, On: "leader", Shown: true, For: 14 * s, Spec: Spec{Offset: -2 * time.Minute}},
		{At: 5 * s, Do: fault.Clock, On: "ms1", Shown: true, For: 20 * s, Spec: Spec{Offset: -time.Minute}}}, true, true},
}

// Find returns the scenario of that name.
func Find(name string) (Scenario, bool) {
	i := slices.IndexFunc(Scenarios, func(sc Scenario) bool { return sc.Name == name })
	if i < 0 {
		return Scenario{}, false
	}
	return Scenarios[i], true
}

// Short is the set that runs in minutes.
func Short() (names []string) {
	for _, sc := range Scenarios {
		if !sc.Long && !sc.Skewed {
			names = append(names, sc.Name)
		}
	}
	return names
}

// Calm is the set whose faults no process dies of.
func Calm() (names []string) {
	for _, sc := range Scenarios {
		if sc.calm() {
			names = append(names, sc.Name)
		}
	}
	return names
}

func (sc Scenario) calm() bool {
	calm := []string{fault.Pause, Partition, OneWay, fault.Loss, fault.SlowLink}
	return !slices.ContainsFunc(sc.Steps, func(st Step) bool { return !slices.Contains(calm, st.Do) })
}

// event is a step at its time.
type event struct {
	at   time.Duration
	step Step
}

// events are the steps of a scenario of that length, in their order. A fault
// that would not end within it is left out.
func (sc Scenario) events(length time.Duration) (list []event) {
	for _, st := range sc.Steps {
		for at := st.At; at+st.For <= length; at += st.Every {
			list = append(list, event{at, st})
			if st.Every == 0 {
				break
			}
		}
	}
	slices.SortStableFunc(list, func(a, b event) int { return int(a.at - b.at) })
	return list
}

// groups reads a step's targets as the command line does.
func groups(on string) (list [][]string) {
	for _, g := range strings.Split(on, "/") {
		list = append(list, strings.Fields(g))
	}
	return list
}
