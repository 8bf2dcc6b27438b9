package deploy

import (
	"math"

	"appliance/node/model"
)

// survey sorts an app's tasks by what the wish means for them.
type survey struct {
	Input
	spec *model.AppSpec // of the wished release

	target   []*model.Task // live ones of the wished release, where they may stay
	outdated []*model.Task // live ones of other releases, or on nodes that they must leave
	live     int           // all that occupy a node or will, stopping ones too
	serving  int           // healthy ones, of any release
	ready    int           // healthy ones among target
}

func look(in Input, spec *model.AppSpec) *survey {
	s := &survey{Input: in, spec: spec}
	for _, t := range in.Tasks {
		if !t.Live() {
			continue
		}
		s.live++
		if t.Stop {
			continue
		}
		ready := s.isReady(t)
		if ready {
			s.serving++
		}
		if t.Release != in.App.Release || s.mustLeave(t) {
			s.outdated = append(s.outdated, t)
			continue
		}
		s.target = append(s.target, t)
		if ready {
			s.ready++
		}
	}
	return s
}

func (s *survey) isReady(t *model.Task) bool {
	r := s.Release(t.Release)
	return t.Ready(r != nil && len(r.Spec.Checks) > 0)
}

// mustLeave reports whether the task's node is being drained.
func (s *survey) mustLeave(t *model.Task) bool {
	if t.Node == "" {
		return false
	}
	n := s.Node(t.Node)
	return n != nil && n.Drain
}

func (s *survey) running() bool {
	return s.Deployment != nil && s.Deployment.State == model.DeploymentRunning
}

// dust forgives floating point: 10 instances at 0.7 are 7, not 8.
const dust = 1e-9

// bounds gives how many healthy tasks must stay and how many may live at
// once. Without a policy it is the safe one: nothing is lost, up to twice the
// instances run while releases change. Where a policy leaves no room to move
// at all, one task more is allowed, as in Marathon.
func (s *survey) bounds() (minHealthy, maxLive int) {
	u, n := s.spec.Upgrade, float64(s.App.Instances)
	if u.MinHealth == 0 && u.MaxOver == 0 {
		u.MinHealth, u.MaxOver = 1, 1
	}
	minHealthy = int(math.Ceil(n*u.MinHealth - dust))
	maxLive = int(math.Floor(n*(1+u.MaxOver) + dust))
	if maxLive <= minHealthy {
		maxLive = minHealthy + 1
	}
	return minHealthy, maxLive
}
