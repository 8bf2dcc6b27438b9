package autopilot

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var usual = Settings{MaxVoters: 5, DeadAfter: 10 * time.Second} // as model.DefaultAutopilot

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// parse reads members and masters from words such as "a" (a voter that is
// well), "-a" (a standby), "a!" (dead), "a?" (silent, not long), "+a" (a
// master that is no member), "a~" (has left and still runs), "a*" (unfit), "a<" (behind).
func parse(text string) (members []Member, masters []Master) {
	for _, w := range strings.Fields(text) {
		id := strings.Trim(w, "+-!?~*<")
		if !strings.HasPrefix(w, "+") {
			members = append(members, Member{id, id + ":1", !strings.HasPrefix(w, "-"), strings.HasSuffix(w, "~")})
		}
		m := Master{ID: id, Addr: id + ":1", Alive: true, Since: start, CaughtUp: true}
		switch {
		case strings.HasSuffix(w, "~"):
			continue
		case strings.HasSuffix(w, "!"):
			m.Alive = false
		case strings.HasSuffix(w, "?"):
			m.Alive, m.Since = false, start.Add(time.Minute-time.Second)
		case strings.HasSuffix(w, "*"):
			m.Unfit = true
		case strings.HasSuffix(w, "<"):
			m.CaughtUp = false
		}
		masters = append(masters, m)
	}
	return members, masters
}

func text(plan []Change) string {
	var out []string
	for _, c := range plan {
		out = append(out, string(c.Op)+" "+c.ID)
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"one":                                   {"a", ""},
		"a second master":                       {"a +b", "add b"},
		"two standbys, one vote at a time":      {"a -b -c", "promote b"},
		"not while it lags":                     {"a b -c<", ""},
		"three of three":                        {"a b c", ""},
		"three of four":                         {"a b c -d", ""},
		"five of five":                          {"a b c -d -e", "promote d"},
		"on the way to five":                    {"a b c d -e", "promote e"},
		"five of six":                           {"a b c d e -f", ""},
		"six are too many":                      {"a b c d e f", "demote f"},
		"four are too many":                     {"a b c d", "demote d"},
		"the unfit one loses the vote":          {"a b* c d", "demote b"},
		"dead without a standby":                {"a b c!", ""},
		"dead with a standby: it votes first":   {"a b c! -d", "promote d"},
		"then the dead one loses its vote":      {"a b c! d", "demote c"},
		"a restart is no death":                 {"a b c? -d", ""},
		"not while one of four may be dying":    {"a b c? d", ""},
		"dead without a standby that is well":   {"a b c! -d*", ""},
		"two of five dead, one standby":         {"a b c d! e! -f", "promote f"},
		"no majority: nothing can be done":      {"a b! c! -d", ""},
		"left":                                  {"a b c~", "remove c"},
		"left standby":                          {"a b c -d~", "remove d"},
		"left, a dead one stays":                {"a b! c~ -d", "promote d"},
		"left, but its vote is needed":          {"a b! c~", ""},
		"all that is left of two":               {"a b~", "remove b"},
		"the leader has left":                   {"a~ b c", "transfer b"},
		"the leader has left, one is not well":  {"a~ b* c", "transfer c"},
		"the leader has left and is alone":      {"a~", ""},
		"a master that never started":           {"a b +c!", ""},
		"dead standby":                          {"a b c -d!", ""},
		"dead standbys do not make five":        {"a b c -d! -e", ""},
		"a dead one back as the third":          {"a b -c", "promote c"},
		"replaced and added at once, in order":  {"a b c~ +d", "add d, remove c"},
		"rebuilt master: votes are never fewer": {"a b~ c +d", "add d, remove b"},
	} {
		t.Run(name, func(t *testing.T) {
			members, masters := parse(c.in)
			if got := text(Plan(members, masters, "a", usual, start.Add(time.Minute))); got != c.want {
				t.Errorf("plan %q, want %q", got, c.want)
			}
		})
	}
}

func TestPlanFollowsAddresses(t *testing.T) {
	members, masters := parse("a b c")
	masters[1].Addr = "new:1"
	if got := Plan(members, masters, "a", usual, start.Add(time.Minute)); len(got) != 1 || got[0].Op != Readdr || got[0].Addr != "new:1" {
		t.Errorf("moved: %+v", got)
	}
	masters[1].Addr = "c:1" // c moves too
	masters[2].Addr = "far:1"
	if got := text(Plan(members, masters, "a", usual, start.Add(time.Minute))); got != "readdr c" {
		t.Errorf("address still in use: %q", got)
	}
	members, masters = parse("a b c! +d")
	masters[3].Addr = "c:1" // another machine at the address of the dead
	if got := text(Plan(members, masters, "a", usual, start.Add(time.Minute))); got != "remove c" {
		t.Errorf("machine with another name: %q", got)
	}
}

// tolerance is how many more of the voters may be lost before changes stop.
func tolerance(voters, living int) int { return max(0, living-voters/2-1) }

// world is a cluster that the plan is applied to.
type world struct {
	t       *rapid.T
	now     time.Time
	members []Member
	masters []Master
	set     Settings
	stopped map[string]bool // of those that have left
}

func (w *world) master(id string) *Master {
	for i := range w.masters {
		if w.masters[i].ID == id {
			return &w.masters[i]
		}
	}
	return nil
}

func (w *world) runs(id string) bool {
	if h := w.master(id); h != nil {
		return h.Alive
	}
	return !w.stopped[id]
}

// leader is a living voter if most voters live.
func (w *world) leader() string {
	voters, living, lead := 0, 0, ""
	for _, m := range w.members {
		if m.Voter {
			voters++
			if w.runs(m.ID) {
				living++
				lead = m.ID
			}
		}
	}
	if living <= voters/2 {
		return ""
	}
	return lead
}

func (w *world) votes() (voters, living int) {
	for _, m := range w.members {
		if m.Voter {
			voters++
			if w.runs(m.ID) {
				living++
			}
		}
	}
	return voters, living
}

// step does what the plan says and checks each change.
func (w *world) step() int {
	self := w.leader()
	if self == "" {
		return 0
	}
	for i := range w.members {
		w.members[i].Runs = w.runs(w.members[i].ID)
	}
	plan := Plan(w.members, w.masters, self, w.set, w.now)
	if again := Plan(w.members, w.masters, self, w.set, w.now); !slices.Equal(plan, again) {
		w.t.Fatalf("two plans from one view: %v, %v", plan, again)
	}
	moves := 0
	for _, c := range plan {
		before, livingBefore := w.votes()
		i := slices.IndexFunc(w.members, func(m Member) bool { return m.ID == c.ID })
		switch c.Op {
		case Add:
			w.members = append(w.members, Member{ID: c.ID, Addr: c.Addr})
		case Readdr:
			w.members[i].Addr = c.Addr
		case Promote:
			if h := w.master(c.ID); w.members[i].Voter || !h.Alive || !h.CaughtUp || w.now.Sub(h.Since) < StableFor {
				w.t.Fatalf("%+v: it is %+v", c, h)
			}
			w.members[i].Voter = true
		case Demote:
			if c.ID == self {
				w.t.Fatalf("the leader demotes itself")
			}
			w.members[i].Voter = false
		case Remove:
			if c.ID == self {
				w.t.Fatalf("the leader removes itself")
			}
			w.members = slices.Delete(w.members, i, i+1)
		case Transfer:
			if h := w.master(c.ID); h == nil || !h.Alive {
				w.t.Fatalf("%+v: it is %+v", c, h)
			}
			if w.master(self) != nil {
				w.t.Fatalf("a leader that has not left hands over")
			}
			// The old one stops and the next leader removes it.
			w.members = slices.DeleteFunc(w.members, func(m Member) bool { return m.ID == self })
			return len(plan)
		}
		addrs := map[string]bool{}
		for _, m := range w.members {
			if addrs[m.Addr] {
				w.t.Fatalf("%+v: the log would have %s twice", c, m.Addr)
			}
			addrs[m.Addr] = true
		}
		voters, living := w.votes()
		if voters == before {
			continue
		}
		if moves++; moves > 1 {
			w.t.Fatalf("two changes of votes in %v", plan)
		}
		if w.leader() == "" {
			w.t.Fatalf("%+v loses the majority", c)
		}
		if living < livingBefore && c.Op == Demote && living < min(livingBefore, 3) {
			w.t.Fatalf("%+v leaves %d living voters", c, living)
		}
		if c.Op == Demote && w.master(c.ID).Alive == false && tolerance(voters, living) < tolerance(before, livingBefore) {
			w.t.Fatalf("%+v makes the cluster weaker", c)
		}
	}
	return len(plan)
}

// settle applies plans until there is nothing more to do.
func (w *world) settle() {
	w.now = w.now.Add(time.Minute)
	for range 100 {
		if w.step() == 0 {
			return
		}
	}
	w.t.Fatalf("the plan never ends: %+v %+v", w.members, w.masters)
}

func TestPlanIsSafeAndConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, now: start, stopped: map[string]bool{}, set: Settings{rapid.SampledFrom([]int{1, 3, 5, 7}).Draw(t, "max"), 10 * time.Second}}
		w.members = []Member{{ID: "n0", Addr: "n0:1", Voter: true}}
		w.masters = []Master{{ID: "n0", Addr: "n0:1", Alive: true, Since: w.now, CaughtUp: true}}
		count := 1
		pick := func() *Master {
			return &w.masters[rapid.IntRange(0, len(w.masters)-1).Draw(t, "who")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(*rapid.T) {
				if len(w.masters) < 9 {
					id := fmt.Sprintf("n%d", count)
					count++
					w.masters = append(w.masters, Master{ID: id, Addr: id + ":1", Alive: true, Since: w.now, CaughtUp: true})
				}
			},
			"die":    func(*rapid.T) { m := pick(); m.Alive, m.Since = false, w.now },
			"return": func(*rapid.T) { m := pick(); m.Alive, m.Since = true, w.now },
			"lag":    func(*rapid.T) { m := pick(); m.CaughtUp = !m.CaughtUp },
			"unfit":  func(*rapid.T) { m := pick(); m.Unfit = !m.Unfit },
			"move":   func(*rapid.T) { m := pick(); m.Addr = fmt.Sprintf("x%d:1", count); count++ },
			"leave": func(*rapid.T) {
				if i := rapid.IntRange(0, len(w.masters)-1).Draw(t, "who"); len(w.masters) > 1 {
					w.masters = slices.Delete(w.masters, i, i+1)
				}
			},
			"stop": func(*rapid.T) {
				for _, m := range w.members {
					w.stopped[m.ID] = w.master(m.ID) == nil
				}
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "s")) * time.Second)
			},
			"step":   func(*rapid.T) { w.step() },
			"settle": func(*rapid.T) { w.settle() },
		})
		// All that exist come back and are well: it ends as wanted.
		for i := range w.masters {
			w.masters[i].Alive, w.masters[i].CaughtUp, w.masters[i].Unfit, w.masters[i].Since = true, true, false, w.now
		}
		if w.leader() == "" {
			return // too many left at once
		}
		w.settle()
		voters, _ := w.votes()
		want := len(w.masters)
		if want > 3 {
			want -= 1 - want%2
		}
		if want = min(want, w.set.MaxVoters); voters != want || len(w.members) != len(w.masters) {
			t.Fatalf("%d voters of %d members, want %d of %d: %+v", voters, len(w.members), want, len(w.masters), w.members)
		}
	})
}
