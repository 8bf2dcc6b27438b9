package deploy

import (
	"cmp"
	"slices"

	"appliance/node/model"
	"appliance/raft/command"
)

// Reasons that readers see at a stopped task.
const (
	whyReplaced = "a task of the wished release took its place"
	whyDrained  = "its node is draining"
	whyScaled   = "the app was scaled down"
)

// reconcile starts what is missing and stops what is too much, within bounds.
func (s *survey) reconcile(p *Plan) {
	minHealthy, maxLive := s.bounds()
	missing := s.App.Instances - len(s.target)
	room := maxLive - s.live
	if n := min(missing, room); n > 0 {
		s.create(p, n)
	}
	spare := s.serving - minHealthy // healthy ones that may be stopped
	stops := map[string][]string{}
	stop := func(t *model.Task, why string) { stops[why] = append(stops[why], t.ID) }
	s.retire(missing, room, &spare, stop)
	s.shrink(&spare, stop)
	for _, why := range []string{whyReplaced, whyDrained, whyScaled} {
		for part := range slices.Chunk(stops[why], chunk) {
			p.add(&command.StopTasks{Tasks: part, Why: why, At: s.Now})
		}
	}
}

// chunk bounds the tasks of one command, so that it fits into a log entry.
const chunk = 500

func (s *survey) create(p *Plan, n int) {
	tasks := make([]model.Task, n)
	for i := range tasks {
		tasks[i] = model.Task{
			ID: TaskID(s.App.ID, s.NewID()), App: s.App.ID, Release: s.App.Release, Env: s.App.Env,
			Resources: s.spec.Resources, CreatedAt: s.Now,
		}
	}
	for part := range slices.Chunk(tasks, chunk) {
		p.add(&command.CreateTasks{Tasks: part})
	}
}

// retire stops outdated tasks. Those that never served go at once. Those that
// served once but are not healthy now may recover, so they stay until their
// room is needed or their successors serve. Healthy ones go as spare allows.
func (s *survey) retire(missing, room int, spare *int, stop func(*model.Task, string)) {
	giveWay := 0
	switch {
	case s.ready >= s.App.Instances:
		giveWay = len(s.outdated)
	case room <= 0:
		giveWay = missing
	}
	for _, t := range s.victims(s.outdated) {
		why := whyReplaced
		if t.Release == s.App.Release {
			why = whyDrained
		}
		switch {
		case s.isReady(t):
			if *spare > 0 {
				*spare--
				stop(t, why)
			}
		case t.Status.State != model.TaskRunning || t.Status.ReadyAt.IsZero():
			stop(t, why)
		case giveWay > 0:
			giveWay--
			stop(t, why)
		}
	}
}

// shrink stops tasks of the wished release beyond the wished number.
func (s *survey) shrink(spare *int, stop func(*model.Task, string)) {
	excess := len(s.target) - s.App.Instances
	if excess <= 0 {
		return // most calls: spare the sorting
	}
	for _, t := range s.victims(s.target) {
		if excess == 0 {
			return
		}
		if s.isReady(t) {
			if *spare <= 0 {
				continue
			}
			*spare--
		}
		excess--
		stop(t, whyScaled)
	}
}

// victims orders tasks by who should go first: those that do not serve, then
// always one of the most crowded node, the newest there; so what is left
// stays spread.
func (s *survey) victims(tasks []*model.Task) []*model.Task {
	rest := slices.Clone(tasks)
	slices.SortFunc(rest, func(a, b *model.Task) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	crowd := map[string]int{}
	for _, t := range rest {
		crowd[t.Node]++
	}
	// A task's rank is how many tasks its node has left when its turn comes.
	rank := map[*model.Task]int{}
	for _, idle := range []bool{true, false} {
		for _, t := range rest {
			if !s.isReady(t) == idle {
				rank[t] = crowd[t.Node]
				crowd[t.Node]--
			}
		}
	}
	slices.SortStableFunc(rest, func(a, b *model.Task) int {
		if ra, rb := s.isReady(a), s.isReady(b); ra != rb {
			if rb {
				return -1
			}
			return 1
		}
		return rank[b] - rank[a]
	})
	return rest
}
