package chaos

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"appliance/node/api"
	"appliance/node/lab/fault"
	"appliance/node/model"
	"appliance/node/register"
	"appliance/vagrant"

	"github.com/anishathalye/porcupine"
)

// liar is a store of keys that forgets, or answers with what was.
type liar struct {
	mu      sync.Mutex
	forget  func(key string) bool
	stale   bool
	other   bool // answers with values that nobody wrote
	deaf    bool // answers no read
	index   uint64
	removed int                  // requests that removed something
	now     map[string][2]string // value, index
	old     map[string][2]string
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	if r.Method == http.MethodPut {
		body := make([]byte, 100)
		n, _ := r.Body.Read(body)
		if cas := r.URL.Query().Get("cas"); cas != "" && cas != cmp.Or(l.now[key][1], "0") {
			fmt.Fprint(w, "false")
			return
		}
		l.index++
		l.old[key] = l.now[key]
		if l.forget == nil || !l.forget(key) {
			l.now[key] = [2]string{string(body[:n]), fmt.Sprint(l.index)}
		}
		fmt.Fprint(w, "true")
		return
	}
	if r.Method == http.MethodDelete {
		before := len(l.now)
		maps.DeleteFunc(l.now, func(k string, _ [2]string) bool { return strings.HasPrefix(k, key) })
		if len(l.now) < before {
			l.removed++
		}
		fmt.Fprint(w, "true")
		return
	}
	if l.deaf {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var list []string
	for k, v := range l.now {
		if k != key && !(r.URL.Query().Has("recurse") && strings.HasPrefix(k, key)) {
			continue
		}
		if l.stale && l.old[k][1] != "" {
			v = l.old[k]
		}
		if l.other {
			v[0] += "?"
		}
		list = append(list, fmt.Sprintf(`{"Key":%q,"Value":%q,"ModifyIndex":%s}`, k, encode(v[0]), v[1]))
	}
	if len(list) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// store serves l as a node.
func store(t *testing.T, l *liar) *node {
	t.Helper()
	l.now, l.old = map[string][2]string{}, map[string][2]string{}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &node{"fake", &http.Client{Transport: redirected{to}}}
}

type redirected struct{ to *url.URL }

func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	req.URL.Host = r.to.Host
	return http.DefaultTransport.RoundTrip(req)
}

// forgetful forgets what is written to keys in [from, to) of the first lot.
func forgetful(from, to int) func(key string) bool {
	keys := map[string]bool{}
	for n := from; n < to; n++ {
		keys[(&lot{}).key(n)] = true
	}
	return func(key string) bool { return keys[key] }
}

func TestLostWritesAreFound(t *testing.T) {
	const writes = 200
	for name, tt := range map[string]struct {
		store *liar
		lost  int
	}{
		"an honest store":        {&liar{}, 0},
		"one that forgets a key": {&liar{forget: forgetful(7, 8)}, 1},
		"one that forgets 60 writes in a row and is honest for the next 140": {&liar{forget: forgetful(0, 60)}, 60},
		"one that answers with other values":                                 {&liar{other: true}, writes},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := newVerdicts(t.Logf)
			n := store(t, tt.store)
			d := newDurable([]*node{n}, wrong)
			for range writes {
				if err := d.write(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if checked, missed := d.counts(); checked != 0 || missed != writes {
				t.Errorf("before the check %d are checked, %d not", checked, missed)
			}
			if err := d.check(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			if checked, missed := d.counts(); wrong.violations() != tt.lost || checked != writes || missed != 0 {
				t.Errorf("%d lost, want %d; %d are checked, %d not", wrong.violations(), tt.lost, checked, missed)
			}
			if len(tt.store.now) > 0 {
				t.Errorf("%d keys are left", len(tt.store.now))
			}
		})
	}
}

func TestReadBackIsBounded(t *testing.T) {
	wrong := newVerdicts(t.Logf)
	l := &liar{deaf: true}
	n := store(t, l)
	d := newDurable([]*node{n}, wrong)
	d.keys = maxKeys - batchKeys - 1
	for range batchKeys + 1 {
		if err := d.write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.write(t.Context()); err != errSkip {
		t.Errorf("more than %d keys: %v", maxKeys, err)
	}
	if d.check(t.Context(), n) == nil || wrong.violations() != 0 {
		t.Fatal("what cannot be read is not lost, and not checked")
	}
	if checked, missed := d.counts(); checked != 0 || missed != batchKeys+1 {
		t.Errorf("%d are checked, %d not", checked, missed)
	}
	l.deaf = false
	if err := d.check(t.Context(), n); err != nil || wrong.violations() != 0 {
		t.Fatal(err)
	}
	if checked, _ := d.counts(); checked != batchKeys+1 || len(l.now) != 0 || l.removed != 2 {
		t.Errorf("%d are checked, %d are left, removed by %d requests", checked, len(l.now), l.removed)
	}
}

func TestEveryScenarioHasItsTurn(t *testing.T) {
	r := &run{o: Options{For: time.Hour}, began: time.Now(), rand: rand.New(rand.NewPCG(1, 2))}
	var order []string
	for i := range 3 * len(Scenarios) {
		sc, _, ok := r.choice(Scenarios, i)
		if !ok {
			t.Fatal("the run is over")
		}
		order = append(order, sc.Name)
	}
	for at := 0; at < len(order); at += len(Scenarios) {
		seen := map[string]bool{}
		for _, name := range order[at : at+len(Scenarios)] {
			seen[name] = true
		}
		if len(seen) != len(Scenarios) {
			t.Errorf("the round from %d has only %d of %d scenarios", at, len(seen), len(Scenarios))
		}
	}
	for begun := range len(Scenarios) { // the calm third begins in the middle of a round
		r := &run{o: r.o, began: time.Now(), rand: r.rand}
		for i := range begun {
			r.choice(Scenarios, i)
		}
		r.began = time.Now().Add(-50 * time.Minute)
		if sc, _, ok := r.choice(Scenarios, begun); !ok || !sc.calm() {
			t.Errorf("after %d scenarios of a round: %s", begun, sc.Name)
		}
	}
	r.began = time.Now().Add(-50 * time.Minute)
	calm := map[string]bool{}
	for range 2 * len(Calm()) {
		sc, _, ok := r.choice(Scenarios, len(order))
		if !ok || !sc.calm() {
			t.Errorf("in the last third of an hour: %s", sc.Name)
		}
		calm[sc.Name] = true
	}
	if len(calm) != len(Calm()) || len(calm) < 5 {
		t.Errorf("%d of %d calm scenarios have a turn", len(calm), len(Calm()))
	}
	if slices.Equal(order[:len(Scenarios)], order[len(Scenarios):2*len(Scenarios)]) {
		t.Error("two rounds have the same order")
	}
}

func TestFreeAddress(t *testing.T) {
	network := vagrant.Cluster{Network: netip.MustParsePrefix("192.0.2.0/29")} // .1 to .6
	taken := map[netip.Addr]bool{}
	for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.5"} {
		taken[netip.MustParseAddr(a)] = true
	}
	c := &Control{rand: rand.New(rand.NewPCG(1, 1))}
	for wanted, ok := range map[string]bool{"": true, "192.0.2.3": true, "192.0.2.2": false, "192.0.2.0": false, "192.0.2.7": false, "192.0.2.9": false, "x": false} {
		got, err := c.free(network, taken, wanted)
		if (err == nil) != ok || ok && (taken[got] || wanted != "" && got.String() != wanted) {
			t.Errorf("wanted %q: got %s, %v", wanted, got, err)
		}
	}
	taken[netip.MustParseAddr("192.0.2.3")], taken[netip.MustParseAddr("192.0.2.6")] = true, true
	if got, err := c.free(network, taken, ""); err == nil {
		t.Errorf("got %s of a full network", got)
	}
}

func TestHistoriesThatCannotBeAreFound(t *testing.T) {
	for name, stale := range map[string]bool{"an honest store": false, "one that answers with old values": true} {
		t.Run(name, func(t *testing.T) {
			wrong := newVerdicts(t.Logf)
			n := store(t, &liar{stale: stale})
			l := newLinear([]*node{n}, wrong)
			var group sync.WaitGroup
			for i := range 3 {
				step := l.client(i)
				group.Go(func() {
					for range 60 {
						_ = step(t.Context()) // what fails is not in the history
					}
				})
			}
			group.Wait()
			l.judge(true)
			if bad := wrong.violations() > 0; bad != stale || l.count() < 100 {
				t.Errorf("found %v, want %v; %d operations", bad, stale, l.count())
			}
		})
	}
}

func TestHistoriesThatCannotBeJudgedAreNoSuccess(t *testing.T) {
	wrong := newVerdicts(t.Logf)
	l := newLinear(nil, wrong)
	l.limit = 10 * time.Millisecond
	for i := range 40 { // all at once, and nobody wrote what is read: every order has to be tried
		in, out := register.Input{Key: "k", Op: "set", Value: fmt.Sprint(i)}, register.Output{Known: true, Done: true}
		if i >= 20 {
			in, out = register.Input{Key: "k", Op: "get"}, register.Output{Known: true, Value: fmt.Sprint(i)}
		}
		l.ops[0] = append(l.ops[0], porcupine.Operation{ClientId: i, Input: in, Output: out, Call: int64(i), Return: int64(100 + i)})
	}
	l.judge(true)
	if wrong.violations() != 1 {
		t.Errorf("%d violations", wrong.violations())
	}
}

func TestAlarmsAreCountedOnce(t *testing.T) {
	w := &watch{wrong: newVerdicts(t.Logf)}
	alarm := func(seq uint64) model.Event {
		return model.Event{Seq: seq, Kind: "node", Subject: "mm2", Text: "has another state than the other masters: apps"}
	}
	other := model.Event{Seq: 6, Kind: "node", Subject: "mm2", Text: "is ready"}
	for _, list := range [][]model.Event{{}, {alarm(5), other}, {alarm(5), other}, {other, alarm(9)}, {other}} {
		w.alarm(list)
	}
	if w.wrong.violations() != 2 || w.wrong.checks(alarmRule) != 5 {
		t.Errorf("%d alarms in %d looks, want 2", w.wrong.violations(), w.wrong.checks(alarmRule))
	}
}

func TestStatesThatWereNotComparedAreNoSuccess(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		wrong  int
	}{
		"all are equal": {`{"index":7,"nodes":1}`, 0},
		"one differs":   {`{"index":7,"nodes":1,"diverged":[{"node":"x","name":"mm1","tables":["apps"]}]}`, 1},
		"one is silent": {`{"index":7,"nodes":0}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // it tries for a minute
				n := &node{"mm1", &http.Client{Transport: answers(tt.answer)}}
				w := &watch{wrong: newVerdicts(t.Logf), nodes: []*node{n},
					cluster: vagrant.Cluster{Machines: []vagrant.Machine{{Name: "mm1", Role: vagrant.RoleMaster}}}}
				w.hashes(t.Context())
				if w.wrong.violations() != tt.wrong || w.wrong.checks(hashRule) != 1 {
					t.Errorf("%d violations, want %d", w.wrong.violations(), tt.wrong)
				}
			})
		})
	}
}

// answers is a node that always says the same.
type answers string

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

func TestNodesThatNeverMeetAreNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := &node{"mm1", &http.Client{Transport: answers(`{"index":8}`)}}
		stuck := &node{"mm2", &http.Client{Transport: answers(`{"index":4}`)}}
		w := &watch{wrong: newVerdicts(t.Logf), nodes: []*node{ahead, stuck}}
		w.same(t.Context())
		if w.wrong.violations() != 1 {
			t.Errorf("%d violations", w.wrong.violations())
		}
	})
}

func TestTwoHoldersOfALeaseAreFound(t *testing.T) {
	wrong := newVerdicts(t.Logf)
	l := &leases{wrong: wrong}
	now := time.Now()
	a, b := &contender{leases: l, id: 1, until: now.Add(leaseTTL)}, &contender{leases: l, id: 2, until: now.Add(leaseTTL)}
	a.begin(now)
	a.end(now.Add(time.Second))
	b.begin(now.Add(2 * time.Second))
	if wrong.violations() != 0 {
		t.Fatal("one after the other is no violation")
	}
	a.begin(now.Add(3 * time.Second))
	if wrong.violations() != 1 {
		t.Error("two at once were not found")
	}
}

func TestStatesThatCannotBeAreFound(t *testing.T) {
	task := func(id, node string, ports ...int) api.TaskView {
		return api.TaskView{Task: &model.Task{ID: id, Node: node, Ports: ports, Status: model.TaskStatus{State: model.TaskRunning}}}
	}
	for _, tt := range []struct {
		name  string
		views [][]api.TaskView
		used  float64
		want  string
	}{
		{"all is well", [][]api.TaskView{{task("a", "n1", 1), task("b", "n2", 1)}, {task("a", "n1", 1)}}, 1, ""},
		{"a task moves", [][]api.TaskView{{task("a", "n1")}, {task("a", "n2")}}, 1, ownerRule},
		{"a port twice", [][]api.TaskView{{task("a", "n1", 7), task("b", "n1", 7)}}, 1, commitRule},
		{"over-commit", [][]api.TaskView{{}}, 3, commitRule},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &watch{wrong: newVerdicts(t.Logf), owners: map[string]string{}}
			for _, list := range tt.views {
				w.inspect("mm1", api.Status{Nodes: []api.NodeView{{Node: &model.Node{Name: "n1", Capacity: model.Resources{CPUs: 2}}, Used: model.Resources{CPUs: tt.used}}}}, list)
			}
			rules, _ := w.wrong.list()
			got := ""
			for _, r := range rules {
				if r.Violations > 0 {
					got = r.Name
				}
			}
			if got != tt.want {
				t.Errorf("violated %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRunsThatProveNothing(t *testing.T) {
	busy := []Tally{{Client: "page", Requests: 1000}}
	for _, tt := range []struct {
		name  string
		part  Part
		known int
		not   string // the rule that was not looked at
		want  string
	}{
		{"enough", Part{Faults: 1, Effect: 1, Notes: 100, Clients: busy}, 100, "", ""},
		{"no faults", Part{Notes: 100, Clients: busy}, 100, "", "no fault was made"},
		{"no effect", Part{Faults: 1, Notes: 100, Clients: busy}, 100, "", "no fault had an effect"},
		{"no requests", Part{Faults: 1, Effect: 1, Notes: 100}, 100, "", "requests"},
		{"no writes", Part{Faults: 1, Effect: 1, Clients: busy}, 100, "", "writes"},
		{"no history", Part{Faults: 1, Effect: 1, Notes: 100, Clients: busy}, 1, "", "history"},
		{"no leases", Part{Faults: 1, Effect: 1, Notes: 100, Clients: busy}, 100, leaseRule, leaseRule},
		{"no owners", Part{Faults: 1, Effect: 1, Notes: 100, Clients: busy}, 100, ownerRule, ownerRule},
		{"never compared", Part{Faults: 1, Effect: 1, Notes: 100, Clients: busy}, 100, sameRule, sameRule},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wrong := newVerdicts(t.Logf)
			r := &run{wrong: wrong, report: &Report{Parts: []Part{tt.part}}, load: &load{kv: newDurable(nil, wrong), lin: newLinear(nil, wrong)}}
			r.load.lin.known = tt.known
			for _, rule := range append(slices.Clone(perScenario), sameRule) {
				if rule != tt.not {
					wrong.check(rule, 1)
				}
			}
			r.finish()
			if got := r.report.Meaningless; (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) || r.report.Good() != (tt.want == "") {
				t.Errorf("meaningless %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWritesThatWereNotReadBackAreNoSuccess(t *testing.T) {
	wrong := newVerdicts(t.Logf)
	r := &run{wrong: wrong, report: &Report{Parts: []Part{{Faults: 1, Effect: 1, Notes: 100}}}, load: &load{kv: newDurable(nil, wrong), lin: newLinear(nil, wrong)}}
	for _, rule := range append(slices.Clone(perScenario), sameRule) {
		wrong.check(rule, 1)
	}
	r.load.kv.missed = 1
	r.finish()
	if !strings.Contains(r.report.Meaningless, "could not be read back") {
		t.Errorf("meaningless %q", r.report.Meaningless)
	}
}

func TestScenarios(t *testing.T) {
	names := map[string]bool{}
	for _, sc := range Scenarios {
		if names[sc.Name] || sc.What == "" {
			t.Errorf("%s is there twice, or says nothing", sc.Name)
		}
		names[sc.Name] = true
		if len(sc.events(sc.Length)) == 0 {
			t.Errorf("%s does nothing", sc.Name)
		}
		for _, e := range sc.events(sc.Length) {
			if e.at+e.step.For > sc.Length {
				t.Errorf("%s: %s ends after the scenario", sc.Name, e.step.Do)
			}
			if e.step.Do == restart || e.step.Do == wipe || e.step.Do == rotate {
				continue
			}
			spec := e.step.Spec
			spec.Kind, spec.Groups, spec.For = e.step.Do, groups(e.step.On), e.step.For
			for i, g := range spec.Groups { // as if the selectors had been replaced
				spec.Groups[i] = []string{fmt.Sprint(i, g)}
			}
			if err := spec.check(true); err != nil {
				t.Errorf("%s: %v", sc.Name, err)
			}
		}
	}
	if len(Short()) < 10 {
		t.Errorf("only %d scenarios are in the short set", len(Short()))
	}
	var length time.Duration
	for _, n := range Short() {
		sc, _ := Find(n)
		length += sc.Length
	}
	if length > 6*time.Minute {
		t.Errorf("the short set alone takes %s: it must end within 10 minutes with the time to settle", length)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	good := Spec{Kind: fault.Kill, Groups: [][]string{{"mm1"}}, For: time.Second}
	for name, change := range map[string]func(s *Spec){
		"unknown kind":          func(s *Spec) { s.Kind = "meteor" },
		"no target":             func(s *Spec) { s.Groups = nil },
		"no time":               func(s *Spec) { s.For = 0 },
		"too long":              func(s *Spec) { s.For = 2 * time.Hour },
		"groups of a kill":      func(s *Spec) { s.Groups = [][]string{{"mm1"}, {"mm2"}} },
		"one group one way":     func(s *Spec) { s.Kind = OneWay },
		"a machine twice":       func(s *Spec) { s.Kind, s.Groups = Partition, [][]string{{"mm1"}, {"mm1"}} },
		"the host killed":       func(s *Spec) { s.Groups = [][]string{{hostName}} },
		"no loss":               func(s *Spec) { s.Kind = fault.Loss },
		"too much loss":         func(s *Spec) { s.Kind, s.Percent = fault.Loss, 101 },
		"no rate":               func(s *Spec) { s.Kind = fault.SlowLink },
		"no delay":              func(s *Spec) { s.Kind = fault.SlowDisk },
		"a clock that is right": func(s *Spec) { s.Kind = fault.Clock },
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			change(&s)
			if s.check(true) == nil {
				t.Error("it was accepted")
			}
		})
	}
	if err := good.check(true); err != nil {
		t.Error(err)
	}
	disk := good
	disk.Kind = fault.FullDisk
	if disk.check(false) == nil || disk.check(true) != nil {
		t.Error("an honest disk cannot be full")
	}
}

func TestRunRefusesBeforeItStartsAnything(t *testing.T) {
	for name, o := range map[string]Options{
		"no scenario": {},
		"unknown":     {Scenarios: []string{"meteor"}},
		"too short":   {Scenarios: []string{"short"}, For: time.Second},
		"negative":    {Scenarios: []string{"short"}, For: -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir = t.TempDir()
			if _, err := Run(context.Background(), o); model.CodeOf(err) != model.CodeInvalid {
				t.Errorf("%v", err)
			}
		})
	}
}
