package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/autopilot"
)

// The plan of who votes is proven in raft/autopilot; this is what four masters
// make of it. A dead voter's place is taken by the standby after the time that
// was set, and by nobody without one: then even two dead of three keep their
// votes, however long.
func TestAStandbyTakesTheVoteOfADeadMaster(t *testing.T) {
	t.Parallel()
	const deadAfter = 2 * time.Second // the least that may be set
	mm1 := found(t)
	if _, _, err := mm1.call(http.MethodPost, api.Prefix+"/autopilot", `{"deadAfter": "2s"}`); err != nil {
		t.Fatal(err)
	}
	mm2 := start(t, mm1.admit("mm2", model.RoleMaster)).listen()
	mm1.votes("mm1 mm2", "")

	// One that is alive and cannot have caught up: nobody reaches its log.
	mm3 := start(t, mm1.admit("mm3", model.RoleMaster))
	mm1.votes("mm1 mm2", "mm3")
	mm1.until("gossip hears the third", func() bool { alive, _ := mm1.gossip.Alive(mm3.cfg.ID); return alive })
	mm1.keeps("mm1 mm2", "mm3", autopilot.StableFor)
	mm3.listen()
	mm1.votes("mm1 mm2 mm3", "")
	mm4 := start(t, mm1.admit("mm4", model.RoleMaster)).listen()
	mm1.votes("mm1 mm2 mm3", "mm4")

	fewest := mm1.countVotes()
	w := write(mm1)
	w.goOn()
	lead, dead := mm1, mm2
	if i := leading(t, mm1, mm2, mm3); i > 0 {
		lead, dead = []*live{mm2, mm3}[i-1], []*live{mm3, mm2}[i-1]
	}
	dead.stop()
	w.goOn()
	others := strings.ReplaceAll("mm1 mm2 mm3 mm4", dead.cfg.Name+" ", "")
	mm1.votes(others, dead.cfg.Name)
	if _, died := lead.gossip.Alive(dead.cfg.ID); time.Since(died) < deadAfter {
		t.Errorf("it was replaced %s after it was found dead", time.Since(died))
	}
	w.goOn()
	if n := fewest(); n < 3 {
		t.Errorf("meanwhile there were %d votes", n)
	}

	back := start(t, dead.cfg).listen()
	back.until("it has what was written without it", func() bool { return w.seenBy(back) })
	mm1.keeps(others, dead.cfg.Name, autopilot.StableFor)
	back.stop()

	w.stop()
	voters := slices.DeleteFunc([]*live{mm1, mm2, mm3, mm4}, func(l *live) bool { return l == dead })
	testNobodyIsForgotten(t, voters, deadAfter, others, dead.cfg.Name)
}

// testNobodyIsForgotten takes three voters without a living standby. The leader
// dies, then one of the two that remain.
func testNobodyIsForgotten(t *testing.T, masters []*live, deadAfter time.Duration, voters, standby string) {
	i := leading(t, masters...)
	dead := masters[i]
	dead.stop()
	left := slices.Delete(slices.Clone(masters), i, i+1)
	w := write(left[0])
	w.goOn()
	left[0].until("the death is known", func() bool { alive, _ := left[0].gossip.Alive(dead.cfg.ID); return !alive })
	left[0].keeps(voters, standby, deadAfter)
	w.goOn()
	w.stop()

	left[1].stop()
	left[0].until("nobody leads", func() bool { return left[0].leader() == "" })
	if err := left[0].put("lost", "x"); err == nil || !strings.Contains(err.Error(), "No cluster leader") {
		t.Errorf("a write to one of three was answered by %v", err)
	}
	again := start(t, left[1].cfg).listen()
	w = write(left[0])
	w.goOn()
	w.stop()
	left[0].votes(voters, standby)
	again.until("it has all", func() bool { return w.seenBy(again) })
}

// leading tells which of them leads.
func leading(t *testing.T, masters ...*live) (i int) {
	t.Helper()
	masters[0].until("one leads", func() bool {
		i = slices.IndexFunc(masters, func(l *live) bool { return l.voter.IsLeader() })
		return i >= 0
	})
	return i
}

// now is who votes and who does not, as the node's API says.
func (l *live) now() (voters, standbys string) {
	l.t.Helper()
	var v api.Autopilot
	l.view("/autopilot", &v)
	return strings.Join(v.Voters, " "), strings.Join(v.Standbys, " ")
}

// votes waits until the log's members are those.
func (l *live) votes(voters, standbys string) {
	l.t.Helper()
	members := len(strings.Fields(voters + " " + standbys))
	l.until(fmt.Sprintf("%q vote and %q do not", voters, standbys), func() bool {
		v, s := l.now()
		servers, err := l.voter.Servers()
		return v == voters && s == standbys && err == nil && len(servers) == members
	})
}

// keeps looks for a while, and for as long as the leader needs to act, that the
// members stay as they are.
func (l *live) keeps(voters, standbys string, while time.Duration) {
	l.t.Helper()
	members := len(strings.Fields(voters + " " + standbys))
	for end := time.Now().Add(while + votersEvery + 500*time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		servers, err := l.voter.Servers()
		if v, s := l.now(); v != voters || s != standbys || err != nil || len(servers) != members {
			l.t.Fatalf("%q vote and %q do not, of %d (%v); want %q and %q", v, s, len(servers), err, voters, standbys)
		}
	}
}

// countVotes watches how many vote, until the result is asked for.
func (l *live) countVotes() (fewest func() int) {
	ctx, cancel := context.WithCancel(l.t.Context())
	least := make(chan int)
	go func() {
		n := 1 << 10
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			if servers, err := l.voter.Servers(); err == nil {
				n = min(n, len(voterIDs(servers)))
			}
		}
		least <- n
	}()
	return func() int { cancel(); return <-least }
}

// writer writes through one node, one key after the other, as long as it runs.
type writer struct {
	at     *live
	prefix string
	acked  atomic.Int64 // keys below this were acknowledged
	last   atomic.Value // what was refused, in words
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func write(at *live) *writer {
	ctx, cancel := context.WithCancel(at.t.Context())
	w := &writer{at: at, prefix: rand.Text() + "/", cancel: cancel}
	w.done.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			if err := at.put(w.key(w.acked.Load()), "x"); err == nil {
				w.acked.Add(1)
			} else {
				w.last.Store(err.Error())
			}
		}
	})
	at.t.Cleanup(w.stop)
	return w
}

func (w *writer) key(n int64) string { return fmt.Sprint(w.prefix, n) }

// goOn waits until some more writes were acknowledged.
func (w *writer) goOn() {
	w.at.t.Helper()
	until := w.acked.Load() + 10
	for end := time.Now().Add(patience); w.acked.Load() < until; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.at.t.Fatalf("writes do not go on: %v", w.last.Load())
		}
	}
}

// seenBy reports whether a node has all that was acknowledged so far.
func (w *writer) seenBy(l *live) bool {
	n := w.acked.Load()
	return l.get(w.key(n-1)) == "x" && l.get(w.key(0)) == "x"
}

func (w *writer) stop() { w.cancel(); w.done.Wait() }
