package sched

import (
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// told is a Liveness by table: the age of the death, nothing is alive.
type told struct {
	dead  map[string]time.Duration
	unmet map[string]bool
	now   time.Time
}

func (d told) Alive(n string) (bool, time.Time) {
	if age, ok := d.dead[n]; ok {
		return false, d.now.Add(-age)
	}
	if d.unmet[n] {
		return true, time.Time{}
	}
	return true, d.now.Add(-time.Hour)
}
func (told) Changed() <-chan struct{} { return nil }
func (d told) Met(n string) bool      { return !d.unmet[n] }

func TestJudge(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name    string
		dead    map[string]time.Duration
		unmet   string
		down    string // node that is already down
		office  time.Duration
		verdict string
		next    time.Duration
	}{
		{name: "all alive", office: time.Hour},
		{name: "dead long enough", dead: map[string]time.Duration{"a1": 4 * s}, office: time.Hour, verdict: "a1 down"},
		{name: "not yet", dead: map[string]time.Duration{"a1": 2 * s}, office: time.Hour, next: s},
		{name: "new leader has not watched long enough", dead: map[string]time.Duration{"a1": time.Hour}, office: s, next: 2 * s},
		{name: "most at once", dead: map[string]time.Duration{"a1": 9 * s, "a2": 9 * s, "a3": 9 * s, "m2": 9 * s}, office: time.Hour, next: 21 * s},
		{name: "most masters", dead: map[string]time.Duration{"m2": 9 * s, "m3": 9 * s}, office: time.Hour, next: 21 * s},
		{name: "most for long", dead: map[string]time.Duration{"m2": 31 * s, "m3": 9 * s}, office: time.Hour, verdict: "m2 down", next: 21 * s},
		{name: "itself", dead: map[string]time.Duration{"m1": 9 * s}, office: time.Hour},
		{name: "back", down: "a2", office: time.Hour, verdict: "a2 ready"},
		{name: "down and never met stays down", down: "a2", unmet: "a2", office: time.Hour},
		{name: "never met", unmet: "a2", office: time.Hour, verdict: "a2 down"},
		{name: "never met, new leader", unmet: "a2", office: 11 * s, verdict: "a2 down"},
		{name: "never met so far", unmet: "a2", office: 9 * s, next: s},
	} {
		t.Run(c.name, func(t *testing.T) {
			var nodes []*model.Node
			for _, id := range []string{"m1", "m2", "m3", "a1", "a2", "a3", "a4"} {
				n := &model.Node{ID: id, Role: model.RoleAgent, Status: model.NodeReady}
				if id[0] == 'm' {
					n.Role = model.RoleMaster
				}
				if id == c.down {
					n.Status = model.NodeDown
				}
				nodes = append(nodes, n)
			}
			verdicts, next := judge(nodes, told{c.dead, map[string]bool{c.unmet: true}, now}, "m1", now.Add(-c.office), now, DefaultDeadAfter)
			got := ""
			for _, v := range verdicts {
				set := v.(*command.SetNodeStatus)
				got += set.Node + " " + string(set.Status)
			}
			if got != c.verdict {
				t.Errorf("verdict %q, want %q", got, c.verdict)
			}
			if want := now.Add(c.next); c.next > 0 && !next.Equal(want) || c.next == 0 && !next.IsZero() {
				t.Errorf("next look after %s, want %s", next.Sub(now), c.next)
			}
		})
	}
}

func TestNodeWithAClockAheadIsJudgedAsOthersAre(t *testing.T) {
	ahead := &model.Node{ID: "a1", Role: model.RoleAgent, Status: model.NodeReady, StartedAt: now.Add(time.Hour), JoinedAt: now.Add(time.Hour)}
	nodes := []*model.Node{ahead}
	for _, id := range []string{"a2", "a3"} {
		nodes = append(nodes, &model.Node{ID: id, Role: model.RoleAgent, Status: model.NodeReady})
	}
	dead := map[string]time.Duration{"a1": 9 * time.Second}
	if verdicts, _ := judge(nodes, told{dead, nil, now}, "m1", now.Add(-time.Hour), now, DefaultDeadAfter); len(verdicts) != 1 {
		t.Errorf("%d verdicts on a node that is dead and whose clock was ahead", len(verdicts))
	}
}
