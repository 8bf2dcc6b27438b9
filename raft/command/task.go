package command

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// CreateTasks adds tasks that wait for a place. Tasks with a known id are
// skipped, so the command may be repeated.
type CreateTasks struct {
	Tasks []model.Task `json:"tasks"`
}

func (c *CreateTasks) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for i := range c.Tasks {
		t := c.Tasks[i]
		app := state.Apps.Get(&tx.Snapshot, t.App)
		if app == nil || state.Tasks.Get(&tx.Snapshot, t.ID) != nil {
			continue // deleted meanwhile, or a repetition
		}
		t.Status = model.TaskStatus{Task: t.ID, State: model.TaskStaging, At: t.CreatedAt}
		state.Tasks.Put(tx, index, &t)
	}
	return nil, nil
}

// Place gives waiting tasks their nodes and says why others got none. It
// checks again that the node takes the task: a place is never over-committed,
// whatever the scheduler saw when it decided.
type Place struct {
	Placements []model.Placement `json:"placements,omitempty"`
	Waiting    []model.Waiting   `json:"waiting,omitempty"` // replaces the app's explanation
	Clear      []string          `json:"clear,omitempty"`   // apps that wait no more
}

// Placed is the result of Place: the tasks that kept waiting, with the cause.
type Placed struct {
	Refused map[string]string `json:"refused,omitempty"`
}

func (c *Place) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	res := Placed{Refused: map[string]string{}}
	for _, p := range c.Placements {
		t := state.Tasks.Get(&tx.Snapshot, p.Task)
		if t == nil || t.Node != "" || !t.Live() || t.Stop {
			res.Refused[p.Task] = "the task does not wait any more"
			continue
		}
		placed := *t
		placed.Node, placed.Ports, placed.PlacedAt = p.Node, p.Ports, p.At
		if why := takes(&tx.Snapshot, &placed); why != "" {
			res.Refused[p.Task] = why
			continue
		}
		state.Tasks.Put(tx, index, &placed)
	}
	for i := range c.Waiting {
		state.Waiting.Put(tx, index, &c.Waiting[i])
	}
	for _, app := range c.Clear {
		state.Waiting.Delete(tx, index, app)
	}
	return res, nil
}

// takes says why the node of t cannot take it, "" if it can.
func takes(s *state.Snapshot, t *model.Task) string {
	n := state.Nodes.Get(s, t.Node)
	if n == nil || !n.Runs() {
		return "the node takes no tasks"
	}
	used, ports := model.Resources{}, map[int]bool{}
	for other := range state.Tasks.By(s, "node", n.ID) {
		if !other.Live() || other.ID == t.ID {
			continue
		}
		used = used.Add(other.Resources)
		for _, p := range other.Ports {
			ports[p] = true
		}
	}
	if !t.Resources.Fits(n.Capacity.Sub(used)) {
		return "the node has not enough free"
	}
	for _, p := range t.Ports {
		if ports[p] {
			return fmt.Sprintf("port %d is taken", p)
		}
	}
	return ""
}

// StopTasks asks agents to end tasks. A task without a place ends here.
type StopTasks struct {
	Tasks []string  `json:"tasks"`
	Why   string    `json:"why"`
	At    time.Time `json:"at"`
}

func (c *StopTasks) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for _, id := range c.Tasks {
		if t := state.Tasks.Get(&tx.Snapshot, id); t != nil {
			stopTask(tx, index, t, c.Why, c.At)
		}
	}
	return nil, nil
}

func stopTask(tx *state.Tx, index uint64, t *model.Task, why string, at time.Time) {
	if !t.Live() || t.Stop {
		return
	}
	stopped := *t
	stopped.Stop, stopped.StopWhy, stopped.StopAt = true, why, at
	if t.Node == "" {
		stopped.Status.State, stopped.Status.Message, stopped.Status.At = model.TaskKilled, why, at
		stopped.Status.Seq++
	}
	state.Tasks.Put(tx, index, &stopped)
}

// Observe is what the agent of one node saw of its tasks. Reports that would
// go backward, come from another node or are older than the stored one are
// ignored and counted.
type Observe struct {
	Node     string             `json:"node"`
	Statuses []model.TaskStatus `json:"statuses"`
}

// Observed is the result of Observe.
type Observed struct {
	Ignored int `json:"ignored"`
}

func (c *Observe) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	var res Observed
	for _, st := range c.Statuses {
		t := state.Tasks.Get(&tx.Snapshot, st.Task)
		if t == nil || t.Node != c.Node || st.Seq <= t.Status.Seq || st.State.Rank() < t.Status.State.Rank() || t.Status.State.Terminal() {
			res.Ignored++
			continue
		}
		next := *t
		next.Status = st
		next.Status.Node = c.Node
		state.Tasks.Put(tx, index, &next)
		if st.State != t.Status.State {
			record(tx, index, st.At, "task", t.ID, "is "+string(st.State)+suffix(st.Message), map[string]string{"app": t.App, "node": c.Node})
		}
	}
	return res, nil
}

// ForgetTasks removes tasks that are over.
type ForgetTasks struct {
	Tasks []string `json:"tasks"`
}

func (c *ForgetTasks) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	apps := map[string]bool{}
	var order []string
	for _, id := range c.Tasks {
		t := state.Tasks.Get(&tx.Snapshot, id)
		if t == nil || t.Live() {
			continue
		}
		state.Tasks.Delete(tx, index, id)
		if !apps[t.App] {
			apps[t.App] = true
			order = append(order, t.App)
		}
	}
	for _, app := range order {
		forgetReleases(tx, index, app)
	}
	return nil, nil
}

// PutFramework registers or updates an external framework.
type PutFramework struct {
	Framework model.Framework `json:"framework"`
}

func (c *PutFramework) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if old := state.Frameworks.Get(&tx.Snapshot, c.Framework.ID); old != nil && old.Removed {
		return nil, model.Errorf(model.CodeConflict, "Framework has been removed")
	}
	state.Frameworks.Put(tx, index, &c.Framework)
	return nil, nil
}

// RemoveFramework ends a framework and stops its tasks. The row stays as a
// tombstone, so that a late scheduler is told.
type RemoveFramework struct {
	ID  string    `json:"id"`
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

func (c *RemoveFramework) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Frameworks.Get(&tx.Snapshot, c.ID)
	if old == nil {
		return nil, model.Errorf(model.CodeNotFound, "Framework cannot be found")
	}
	f := *old
	f.Removed, f.Connected = true, false
	state.Frameworks.Put(tx, index, &f)
	for _, t := range collect(state.Tasks.By(&tx.Snapshot, "framework", c.ID)) {
		stopTask(tx, index, t, c.Why, c.At)
	}
	record(tx, index, c.At, "framework", c.ID, "was removed: "+c.Why, nil)
	return nil, nil
}

// LaunchTasks starts tasks of an external framework on the nodes it chose from
// its offers. Like Place it never over-commits.
type LaunchTasks struct {
	Tasks []model.Task `json:"tasks"`
}

func (c *LaunchTasks) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	res := Placed{Refused: map[string]string{}}
	for i := range c.Tasks {
		t := c.Tasks[i]
		if state.Tasks.Get(&tx.Snapshot, t.ID) != nil {
			res.Refused[t.ID] = "Task has duplicate ID: " + t.ID
			continue
		}
		if why := takes(&tx.Snapshot, &t); why != "" {
			res.Refused[t.ID] = why
			continue
		}
		t.Status = model.TaskStatus{Task: t.ID, State: model.TaskStaging, At: t.CreatedAt}
		state.Tasks.Put(tx, index, &t)
	}
	return res, nil
}

// AckStatus notes that the external framework has seen a status: the one with
// the sequence number Seq or, if that is 0, with the UUID. Statuses written by
// masters (a lost task) have a number but no UUID of their own.
type AckStatus struct {
	Task string `json:"task"`
	UUID string `json:"uuid"`
	Seq  uint64 `json:"seq,omitempty"`
}

func (c *AckStatus) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	t := state.Tasks.Get(&tx.Snapshot, c.Task)
	if t == nil || t.Acked == c.UUID {
		return nil, nil
	}
	if current := t.Status.UUID == c.UUID; c.Seq != 0 && t.Status.Seq != c.Seq || c.Seq == 0 && !current {
		return nil, nil // an older status
	}
	acked := *t
	acked.Acked = c.UUID
	state.Tasks.Put(tx, index, &acked)
	return nil, nil
}
