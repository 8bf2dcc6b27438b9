package story

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"appliance/node/api"
	"appliance/vagrant"
)

// The promises of the story.
const (
	vipLimit    = 2 * time.Second
	leaderLimit = 2 * time.Second
	agentLimit  = 10 * time.Second
)

// scale changes the number of instances under load.
func (s *Story) scale(ctx context.Context) error {
	load, err := s.StartLoad(ctx, s.vip(), "app-"+envTest)
	if err != nil {
		return err
	}
	defer load.cancel()
	for _, n := range []int{6, 2} {
		if _, err := s.run(ctx, "scale", appName, "--env", envTest, fmt.Sprint(n)); err != nil {
			return err
		}
		began := time.Now()
		if err := s.placed(ctx, envTest, n, "ms1", "ms2"); err != nil {
			return err
		}
		if err := s.inCatalog(ctx, envTest, n); err != nil {
			return err
		}
		if err := s.behindVIP(ctx, envTest, n); err != nil {
			return err
		}
		if err := s.mark(fmt.Sprintf("scaled to %d: everybody knows", n), time.Since(began), 0, "after the command's end"); err != nil {
			return err
		}
	}
	r, err := s.finish(ctx, load)
	if err != nil {
		return err
	}
	return s.mark("scale under load: slowest request", r.Slowest, 0, fmt.Sprintf("%d requests, none failed", r.Requests))
}

// front tries the app at addr with a new connection.
func (s *Story) front(addr, env string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		v := newVisitor(addr, "app-"+env, false)
		_, err := v.get(ctx, "/")
		return err
	}
}

// loseVIP kills the process of the address's holder and pulls its cable.
func (s *Story) loseVIP(ctx context.Context) error {
	st, err := s.status(ctx, s.master())
	if err != nil {
		return err
	}
	if st.VIPNode == "" {
		return fmt.Errorf("nobody is known to hold %s", s.cluster.VIP)
	}
	s.out.line("%s holds %s (and %s leads)", st.VIPNode, s.cluster.VIP, st.Leader)
	const patience = 400 * time.Millisecond // of a visitor who tries again
	watch := watchOutage(ctx, patience, s.front(s.vip(), envTest))
	defer watch.cancel()
	if err := watch.steady(ctx, 5); err != nil {
		return err
	}
	fault := time.Now()
	if _, err := s.run(ctx, "lab", "kill", "--stay", st.VIPNode); err != nil {
		return err
	}
	if _, err := s.run(ctx, "lab", "link", st.VIPNode, "down"); err != nil {
		return err
	}
	gap, err := watch.after(ctx, fault, 2*time.Second)
	if err != nil {
		return err
	}
	if err := s.mark("VIP holder dead: http://app-"+envTest+" answers again", gap, vipLimit, ""); err != nil {
		return err
	}
	if err := s.back(ctx, st.VIPNode, true); err != nil {
		return err
	}
	return s.settled(ctx)
}

// back plugs a machine in and starts it.
func (s *Story) back(ctx context.Context, machine string, link bool) error {
	if link {
		if _, err := s.run(ctx, "lab", "link", machine, "up"); err != nil {
			return err
		}
	}
	_, err := s.run(ctx, "lab", "start", machine)
	return err
}

// settled waits until all machines are ready and all apps are at target.
func (s *Story) settled(ctx context.Context) error {
	began := time.Now()
	if err := s.everybodyReady(ctx); err != nil {
		return err
	}
	apps, err := get[[]api.AppView](ctx, s.api(s.master()), "/apps")
	if err != nil {
		return err
	}
	for _, app := range apps {
		if err := s.atTarget(ctx, app.ID); err != nil {
			return err
		}
	}
	s.out.ok("%d machines ready and all apps at their target again, by themselves, after %s", len(s.cluster.Machines), short(time.Since(began)))
	return nil
}

// atTarget waits until as many instances of an app are ready as are wanted.
func (s *Story) atTarget(ctx context.Context, id string) error {
	return await(ctx, stepTime, func(ctx context.Context) error {
		app, err := get[api.AppView](ctx, s.api(s.master()), "/apps"+id)
		if err == nil && (app.Ready != app.Instances || app.Running != app.Instances) {
			err = fmt.Errorf("%s has %d of %d instances ready", app.ID, app.Ready, app.Instances)
		}
		return err
	})
}

// loseLeader kills the leader's process while the app is in use.
func (s *Story) loseLeader(ctx context.Context) error {
	st, err := s.status(ctx, s.master())
	if err != nil {
		return err
	}
	leader, at := st.Leader, s.vip()
	s.out.line("%s leads, %s holds the virtual address", leader, st.VIPNode)
	if leader == st.VIPNode {
		// The last step was about the loss of the address; this one is not.
		other := s.cluster.Machines[slices.IndexFunc(s.cluster.Machines, func(m vagrant.Machine) bool { return m.Role == vagrant.RoleAgent })]
		at = other.Address.String() + ":80"
		s.out.line("   so the load takes the proxy of %s, which does the same", other.Name)
	}
	load, err := s.StartLoad(ctx, at, "app-"+envTest)
	if err != nil {
		return err
	}
	defer load.cancel()
	gap, err := s.killLeader(ctx, leader)
	if err != nil {
		return err
	}
	if err := s.mark("leader dead: first write accepted", gap, leaderLimit, "through another master"); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	r, err := s.finish(ctx, load)
	if err != nil {
		return err
	}
	if err := s.mark("leader dead: slowest request to the app", r.Slowest, 0, fmt.Sprintf("%d requests, none failed", r.Requests)); err != nil {
		return err
	}
	st, err = s.status(ctx, s.master(leader))
	if err == nil {
		s.out.ok("%s leads now", st.Leader)
	}
	return err
}

// killLeader returns for how long no write was accepted by another master.
func (s *Story) killLeader(ctx context.Context, leader string) (time.Duration, error) {
	return s.withoutLeader(ctx, leader, func() error {
		_, err := s.run(ctx, "lab", "kill", leader)
		return err
	})
}

// unplugLeader is killLeader for a machine that falls silent. Its link stays down.
func (s *Story) unplugLeader(ctx context.Context, leader string) (time.Duration, error) {
	return s.withoutLeader(ctx, leader, func() error { return s.lab.Link(leader, false) })
}

// withoutLeader is killLeader for any fault.
func (s *Story) withoutLeader(ctx context.Context, leader string, fault func() error) (time.Duration, error) {
	other := s.api(s.master(leader))
	const patience = 5 * time.Second // a write that waits for the new leader is a good one
	watch := watchOutage(ctx, patience, func(ctx context.Context) error { return other.put(ctx, "story/leader", leader) })
	defer watch.cancel()
	if err := watch.steady(ctx, 5); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := fault(); err != nil {
		return 0, err
	}
	return watch.after(ctx, began, 2*time.Second)
}

// loseAgent cuts the power of a machine that runs instances.
func (s *Story) loseAgent(ctx context.Context) error {
	const victim = "ms1"
	app, err := s.app(ctx, envTest)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "ps", "--env", envTest); err != nil {
		return err
	}
	watch := watchOutage(ctx, 2*time.Second, s.front(s.vip(), envTest))
	defer watch.cancel()
	if err := watch.steady(ctx, 5); err != nil {
		return err
	}
	began := time.Now()
	if _, err := s.run(ctx, "lab", "poweroff", victim); err != nil {
		return err
	}
	took, err := s.replaced(ctx, began, victim, app.Instances)
	if err != nil {
		return err
	}
	if err := s.mark(victim+" off: its instances run elsewhere in "+envTest, took, agentLimit, ""); err != nil {
		return err
	}
	gap, err := watch.after(ctx, began, time.Second)
	if err != nil {
		return err
	}
	if err := s.mark(victim+" off: longest time without an answer", gap, vipLimit, ""); err != nil {
		return err
	}
	if err := s.everyInstance(ctx, app.Instances); err != nil {
		return err
	}
	if err := s.back(ctx, victim, false); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	_, err = s.run(ctx, "status")
	return err
}

// replaced waits until count instances are ready and none is on the victim.
func (s *Story) replaced(ctx context.Context, since time.Time, victim string, count int) (time.Duration, error) {
	err := await(ctx, stepTime, func(ctx context.Context) error {
		on, err := s.ready(ctx, s.master(), envTest, count)
		if err == nil && on[victim] > 0 {
			err = fmt.Errorf("%d instances are still on %s", on[victim], victim)
		}
		return err
	})
	return time.Since(since), err
}

// reachable asks a machine's web pages.
func reachable(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := plain.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
