package sched

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/node/replay"
	"appliance/raft/command"
	"appliance/raft/state"
)

// history is a leader's rounds over a state of its own: it is the log, the
// gossip, the users and the agents.
type history struct {
	*rand.Rand
	t    *testing.T
	say  replay.Say
	term *term
	now  time.Time
	ids  int
	dead map[string]time.Time
}

func newHistory(t *testing.T, r *rand.Rand, say replay.Say) *history {
	h := &history{Rand: r, t: t, say: say, now: now, dead: map[string]time.Time{}}
	l := &Loop{Store: state.New(), Proposer: h, Liveness: h, Self: "self", NewID: h.id, Now: func() time.Time { return h.now },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	h.term = &term{Loop: l, started: now, deadAfter: DefaultDeadAfter, measured: map[string]bool{}, volumes: newVolumes(l)}
	h.do(&command.PutEnvironment{Environment: model.Environment{Name: "test"}})
	for i := range 9 {
		n := agent(fmt.Sprintf("n%d", i), 4, fmt.Sprintf("rack=%d", i%3)).Node
		h.do(&command.RegisterNode{Node: *n})
	}
	return h
}

func (h *history) id() string { h.ids++; return fmt.Sprintf("id%d", h.ids) }

// Propose implements command.Proposer: what the leader proposes is the output.
func (h *history) Propose(_ context.Context, c command.Command) (command.Result, error) {
	raw, err := command.Encode(c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.say(string(raw))
	return h.do(c), nil
}

func (h *history) do(c command.Command) command.Result {
	tx := h.term.Store.Begin()
	index := tx.Index() + 1
	res, err := command.ApplyCommand(tx, index, c)
	tx.Commit(index)
	if err != nil {
		h.t.Fatalf("%T: %v", c, err)
	}
	return res
}

// Alive and Changed implement Liveness.
func (h *history) Alive(node string) (bool, time.Time) {
	since, dead := h.dead[node]
	if !dead {
		return true, h.now.Add(-time.Minute)
	}
	return false, since
}

func (h *history) Changed() <-chan struct{} { return nil }

// event is something that happens between two rounds.
func (h *history) event() {
	app, node := fmt.Sprintf("/test/a%d", h.IntN(4)), fmt.Sprintf("n%d", h.IntN(9))
	d := model.Deployment{ID: h.id(), Kind: "deploy", StartedAt: h.now}
	switch h.IntN(8) {
	case 0, 1:
		spec := model.AppSpec{ID: app, Image: "image", Priority: h.IntN(3), Resources: model.Resources{CPUs: float64(h.IntN(8)) / 4},
			Ports: []model.Port{{ContainerPort: 80}}, Upgrade: model.UpgradePolicy{MaxOver: 1}}
		if h.IntN(2) == 0 {
			spec.Constraints = []model.Constraint{{Attribute: "rack", Operator: replay.One(h.Rand, "UNIQUE", "GROUP_BY", "CLUSTER")}}
		}
		h.do(&command.CreateRelease{Release: model.Release{App: app, Spec: spec, CreatedAt: h.now}, Instances: h.IntN(9), Deployment: d})
	case 2:
		h.do(&command.ScaleApp{App: app, Instances: h.IntN(9), Deployment: d})
	case 3:
		h.dead[node] = h.now
	case 4, 5:
		delete(h.dead, node)
	case 6:
		h.do(&command.SetNodeDrain{Node: node, Drain: h.IntN(3) == 0, At: h.now})
	case 7:
		h.now = h.now.Add(time.Duration(h.IntN(400)) * time.Second)
	}
}

// agents let each placed task do what tasks do.
func (h *history) agents() {
	for t := range state.Tasks.All(h.term.Store.Snapshot()) {
		st, yes := t.Status, true
		st.Task, st.Seq, st.At = t.ID, st.Seq+1, h.now
		switch {
		case t.Node == "" || !t.Live():
			continue
		case t.Stop:
			st.State = model.TaskKilled
		case h.IntN(8) == 0:
			st.State, st.Message = model.TaskFailed, "exit code 1"
		case t.Status.State != model.TaskRunning:
			st.State, st.StartedAt, st.ReadyAt, st.Healthy = model.TaskRunning, h.now, h.now, &yes
		default:
			continue
		}
		h.do(&command.Observe{Node: t.Node, Statuses: []model.TaskStatus{st}})
	}
}

// A leader that sees the same proposes the same: verdicts on nodes, the steps
// of deployments, places, refusals with their words, what is forgotten.
func TestRoundsReplayExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		h := newHistory(t, r, say)
		for range 40 {
			h.event()
			h.agents()
			h.now = h.now.Add(time.Second)
			next, err := h.term.round(t.Context(), h.term.Store.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			s := h.term.Store.Snapshot()
			say(fmt.Sprint("again at ", next.UnixNano()))
			for app := range state.Apps.All(s) {
				say(ExplainApp(s, app.ID, h.now))
			}
		}
	})
}

func TestShareReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		some := func() model.Resources {
			return model.Resources{CPUs: float64(r.IntN(5)), Memory: float64(r.IntN(5)), Disk: float64(r.IntN(3))}
		}
		for range 200 {
			var clients []Client
			for i := range r.IntN(8) {
				clients = append(clients, Client{ID: fmt.Sprint("f", i), Role: replay.One(r, "*", "a", "b", "c"), Used: some(), Weight: float64(r.IntN(3))})
			}
			r.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })
			say(Share(clients, model.Resources{CPUs: 10, Memory: 20, Disk: 5}))
		}
	})
}
