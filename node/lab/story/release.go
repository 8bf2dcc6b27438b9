package story

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/model"
)

// deploy brings the image into the test environment and checks everything
// that a deployment promises.
func (s *Story) deploy(ctx context.Context) error {
	if err := s.awaited(ctx, envTest, "deploy", appName, "--env", envTest); err != nil {
		return err
	}
	if err := s.receipt(ctx, envTest); err != nil {
		return err
	}
	if err := s.placed(ctx, envTest, firstUsers, "ms1", "ms2"); err != nil {
		return err
	}
	if err := s.inCatalog(ctx, envTest, firstUsers); err != nil {
		return err
	}
	return s.behindVIP(ctx, envTest, firstUsers)
}

// promote takes the very image to production.
func (s *Story) promote(ctx context.Context) error {
	if err := s.awaited(ctx, envProd, "promote", appName, "--from", envTest, "--to", envProd); err != nil {
		return err
	}
	if err := s.receipt(ctx, envProd); err != nil {
		return err
	}
	if err := s.placed(ctx, envProd, firstUsers, "ms3", "ms4"); err != nil {
		return err
	}
	if err := s.inCatalog(ctx, envProd, firstUsers); err != nil {
		return err
	}
	if err := s.behindVIP(ctx, envProd, firstUsers); err != nil {
		return err
	}
	// Test has not been touched, and production has a database of its own.
	if err := s.placed(ctx, envTest, firstUsers, "ms1", "ms2"); err != nil {
		return err
	}
	stranger := newVisitor(s.vip(), "app-"+envProd, true)
	defer stranger.close()
	stranger.http.Jar = s.user.http.Jar
	p, err := stranger.get(ctx, "/")
	if err == nil && strings.Contains(p.body, s.user.email) {
		err = fmt.Errorf("production knows a user of %s", envTest)
	}
	return err
}

// awaited runs a command that brings the app into an environment while a
// visitor waits for its page.
func (s *Story) awaited(ctx context.Context, env string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	began := time.Now()
	type visit struct {
		took time.Duration
		err  error
	}
	first := make(chan visit, 1)
	go func() {
		err := await(ctx, stepTime, s.front(s.vip(), env))
		first <- visit{time.Since(began), err}
	}()
	if _, err := s.run(ctx, args...); err != nil {
		return err
	}
	v := <-first
	if v.err != nil {
		return fmt.Errorf("the first visitor of app-%s: %w", env, v.err)
	}
	return s.mark(env+": command to first real traffic", v.took, 0, "image pulled and volume made for the first time")
}

// receipt checks the measured outcome of the last deployment.
func (s *Story) receipt(ctx context.Context, env string) error {
	d, err := s.last(ctx, env)
	if err != nil {
		return err
	}
	r := d.Receipt
	switch {
	case d.State != model.DeploymentSucceeded || r == nil:
		return fmt.Errorf("deployment %s is %s and has no receipt: %s", d.ID, d.State, d.Why)
	case r.Digest != s.digest:
		return fmt.Errorf("the receipt of %s names %s, built was %s", env, r.Digest, s.digest)
	case r.Failed > 0:
		return fmt.Errorf("the receipt of %s names %d failed requests", env, r.Failed)
	case !r.Passed:
		return fmt.Errorf("the receipt of %s is not a passing one", env)
	}
	return nil
}

// placed wants count ready instances of the built digest, on each of the
// nodes and nowhere else.
func (s *Story) placed(ctx context.Context, env string, count int, nodes ...string) error {
	var on map[string]int
	err := await(ctx, stepTime, func(ctx context.Context) error {
		var err error
		on, err = s.ready(ctx, s.master(), env, count)
		return err
	})
	if err != nil {
		return err
	}
	for node := range on {
		if !slices.Contains(nodes, node) {
			return fmt.Errorf("an instance of %s runs on %s", env, node)
		}
	}
	for _, node := range nodes {
		if on[node] == 0 {
			return fmt.Errorf("no instance of %s runs on %s: they are not spread", env, node)
		}
	}
	app, err := s.app(ctx, env)
	if err != nil {
		return err
	}
	if app.Digest != s.digest {
		return fmt.Errorf("%s runs %s, built was %s", env, app.Digest, s.digest)
	}
	s.out.ok("%d instances, only on %s, of %.19s...", count, strings.Join(slices.Sorted(maps.Keys(on)), " and "), s.digest)
	return nil
}

// ready counts the ready instances by node; an error if there are not
// exactly count and nothing else.
func (s *Story) ready(ctx context.Context, machine, env string, count int) (map[string]int, error) {
	tasks, err := s.tasks(ctx, machine, env)
	if err != nil {
		return nil, err
	}
	on := map[string]int{}
	ready := 0
	for _, t := range tasks {
		if t.Ready {
			ready++
			on[t.NodeName]++
		}
	}
	if ready != count || len(tasks) != count {
		return nil, fmt.Errorf("%s has %d instances, %d of them ready; wanted are %d", env, len(tasks), ready, count)
	}
	return on, nil
}

func (s *Story) app(ctx context.Context, env string) (api.AppView, error) {
	return get[api.AppView](ctx, s.api(s.master()), "/apps"+model.AppID(env, appName))
}

// behindVIP wants the page at the environment's name, from every instance.
func (s *Story) behindVIP(ctx context.Context, env string, count int) error {
	host := "app-" + env
	v := newVisitor(s.vip(), host, true)
	defer v.close()
	seen := map[string]bool{}
	const looks = 60 // a fair proxy shows three instances in far fewer
	for range looks {
		p, err := v.get(ctx, "/")
		if err != nil {
			return err
		}
		if p.env != env {
			return fmt.Errorf("the page at http://%s names environment %q", host, p.env)
		}
		seen[p.instance] = true
		if len(seen) == count {
			break
		}
	}
	if len(seen) != count {
		return fmt.Errorf("%d requests to http://%s showed %d of %d instances", looks, host, len(seen), count)
	}
	s.out.ok("http://%s at %s shows environment %s and, in turn, containers %s", host, s.cluster.VIP, env, strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
	return nil
}

// session signs a user up through one instance and looks through the others.
func (s *Story) session(ctx context.Context) error {
	s.user, s.note = newVisitor(s.vip(), "app-"+envTest, false), "Shopping list"
	at, err := s.user.signUp(ctx, "newcomer@example.org")
	if err != nil {
		return err
	}
	s.out.line("   %s signs up and logs in through container %s", s.user.email, at)
	p, err := s.user.write(ctx, s.note, "milk, bread, seven machines")
	if err != nil {
		return err
	}
	s.out.line("   the note %q is made through container %s", s.note, p.instance)
	if err := s.everyInstance(ctx, firstUsers); err != nil {
		return err
	}
	return s.sharedVolume(ctx)
}

// everyInstance wants the user's session and note from count instances.
func (s *Story) everyInstance(ctx context.Context, count int) error {
	seen := map[string]bool{}
	err := await(ctx, stepTime, func(ctx context.Context) error {
		p, err := s.user.get(ctx, "/")
		if err != nil {
			return err
		}
		if err := s.user.sees(p, s.note); err != nil {
			return err
		}
		if seen[p.instance] = true; len(seen) < count {
			return fmt.Errorf("only %d of %d instances have answered", len(seen), count)
		}
		return nil
	})
	if err == nil {
		s.out.ok("still logged in, and the note is there, through %s", strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
	}
	return err
}

// sharedVolume looks into the containers: /data must come over the network
// (NFS) or from our FUSE client, whatever machine it is on.
func (s *Story) sharedVolume(ctx context.Context) error {
	tasks, err := s.tasks(ctx, s.master(), envTest)
	if err != nil {
		return err
	}
	nodes := map[string]bool{}
	for _, t := range tasks {
		nodes[t.NodeName] = true
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		out, err := s.run(ctx, "lab", "exec", node, "sh", "-c", `cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -o " /data .*" | cut -d" " -f3- | sort -u`)
		if err != nil {
			return err
		}
		types := strings.Fields(out)
		if len(types) == 0 {
			return fmt.Errorf("no container on %s has /data mounted", node)
		}
		for line := range strings.Lines(out) {
			if !strings.Contains(line, "- nfs") && !strings.Contains(line, "- fuse") {
				return fmt.Errorf("/data on %s is neither NFS nor FUSE: %s", node, strings.TrimSpace(line))
			}
		}
	}
	s.out.ok("the database lies on a network volume, on every machine")
	_, err = s.run(ctx, "volumes")
	return err
}

// inCatalog asks every machine's Consul API and DNS for the service.
func (s *Story) inCatalog(ctx context.Context, env string, count int) error {
	service := appName + "-" + env
	began := time.Now()
	err := await(ctx, stepTime, func(ctx context.Context) error { return s.catalogSays(ctx, service, count) })
	if err != nil {
		return err
	}
	s.out.ok("%d machines answer %s with %d instances, by Consul HTTP and by DNS (%s)", len(s.cluster.Machines), service, count, short(time.Since(began)))
	s.out.line("   look: curl http://%s:8500/v1/health/service/%s?passing", s.cluster.Masters()[0].Address, service)
	s.out.line("   look: dig @%s -p 8600 %s.service.consul SRV", s.cluster.Masters()[0].Address, service)
	return nil
}

func (s *Story) catalogSays(ctx context.Context, service string, count int) error {
	for _, m := range s.cluster.Machines {
		n, err := consulCount(ctx, m.Address.String(), service)
		if err == nil && n != count {
			err = fmt.Errorf("the Consul API of %s knows %d instances of %s, not %d", m.Name, n, service, count)
		}
		if err != nil {
			return err
		}
		n, err = srvCount(ctx, m.Address.String(), service)
		if err == nil && n != count {
			err = fmt.Errorf("the DNS of %s knows %d instances of %s, not %d", m.Name, n, service, count)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var plain = &http.Client{Timeout: 5 * time.Second}
