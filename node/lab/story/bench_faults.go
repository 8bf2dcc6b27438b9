package story

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"appliance/node/api"
	"appliance/node/model"
)

// deployments rolls out release after release under load.
func (b *Bench) deployments(ctx context.Context) error {
	load, err := b.s.StartLoad(ctx, b.s.vip(), "app-"+envTest)
	if err != nil {
		return err
	}
	defer load.cancel()
	var first, whole []time.Duration
	for range benchDeploys {
		f, w, err := b.s.roll(ctx)
		if err != nil {
			return err
		}
		first, whole = append(first, f), append(whole, w)
	}
	r := load.Stop()
	note := fmt.Sprintf("p50 %.2f s; %d rolling deployments of three instances under load; to the end p50 %.1f s", quantile(first, 0.5), len(first), quantile(whole, 0.5))
	b.less("deploy accepted -> first real traffic, p95", "s", quantile(first, 0.95), 2.5, 1.2, note)
	note = fmt.Sprintf("of %d requests (%d notes made), slowest %s", r.Requests, r.Writes, short(r.Slowest))
	if r.Failed > 0 {
		note += "; first: " + r.FirstError
	}
	b.less(fmt.Sprintf("failed requests during %d rolling deployments", benchDeploys), "requests", float64(r.Failed), 0, 0, note)
	return load.Verify(ctx)
}

var releaseLine = regexp.MustCompile(`data-release="(\d+)"`)

// roll deploys once and returns when the first visitor got the new release and
// when the deployment was over.
func (s *Story) roll(ctx context.Context) (first, whole time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	body, err := json.Marshal(api.DeployRequest{App: appName, Env: envTest})
	if err != nil {
		return 0, 0, err
	}
	master := s.api(s.master())
	text, err := master.do(ctx, http.MethodPost, api.Prefix+"/deploy", string(body))
	began := time.Now()
	var acc api.Accepted
	if err == nil {
		err = json.Unmarshal(text, &acc)
	}
	if err != nil {
		return 0, 0, err
	}
	v := newVisitor(s.vip(), "app-"+envTest, true)
	defer v.close()
	err = awaitEvery(ctx, commandTime, 5*time.Millisecond, func(ctx context.Context) error {
		p, err := v.get(ctx, "/")
		if err != nil {
			return err
		}
		m := releaseLine.FindStringSubmatch(p.body)
		if m == nil || m[1] != strconv.FormatUint(acc.Release, 10) {
			return fmt.Errorf("the page is of release %v, not of %d", m, acc.Release)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	first = time.Since(began)
	err = await(ctx, commandTime, func(ctx context.Context) error {
		d, err := get[model.Deployment](ctx, master, "/deployments/"+acc.Deployment)
		if err == nil && d.State != model.DeploymentSucceeded {
			err = fmt.Errorf("deployment %s is %s: %s", d.ID, d.State, d.Why)
		}
		return err
	})
	return first, time.Since(began), err
}

// leaders takes one leader after the other: by turns its process dies, which its machine tells the others, and its
// cable is pulled, which nobody does.
func (b *Bench) leaders(ctx context.Context) error {
	var killed, silent []time.Duration
	for range benchLeaders {
		gap, err := b.leader(ctx, b.s.killLeader)
		if err != nil {
			return err
		}
		killed = append(killed, gap)
		if gap, err = b.leader(ctx, b.s.unplugLeader); err != nil {
			return err
		}
		silent = append(silent, gap)
	}
	row := func(what string, gaps []time.Duration) {
		b.less(what+" -> first accepted write, p99", "s", quantile(gaps, 0.99), 1.5, 0.8,
			fmt.Sprintf("p50 %.2f s; the worst of %d", quantile(gaps, 0.5), len(gaps)))
	}
	row("leader killed", killed)
	row("leader's cable pulled", silent)
	return nil
}

// leader makes one loss and waits until all is well again.
func (b *Bench) leader(ctx context.Context, lose func(context.Context, string) (time.Duration, error)) (time.Duration, error) {
	st, err := b.s.status(ctx, b.s.master())
	if err != nil {
		return 0, err
	}
	gap, err := lose(ctx, st.Leader)
	if err != nil {
		return 0, err
	}
	if err := b.s.lab.Link(st.Leader, true); err != nil {
		return 0, err
	}
	return gap, b.s.settled(ctx)
}

// vips crashes holders of the address, then stops some in order.
func (b *Bench) vips(ctx context.Context) error {
	var crashed, planned []time.Duration
	for range benchVIPs {
		gap, err := b.handOver(ctx, func(holder string) error {
			if err := b.s.lab.Kill(ctx, holder, true); err != nil {
				return err
			}
			return b.s.lab.Link(holder, false)
		})
		if err != nil {
			return err
		}
		crashed = append(crashed, gap)
	}
	failed := 0
	var serving []time.Duration
	for try := 0; len(planned) < benchVIPs && try < 3*benchVIPs; try++ {
		load, err := b.s.StartLoad(ctx, b.s.vip(), "app-"+envTest)
		if err != nil {
			return err
		}
		serves := false
		gap, err := b.handOver(ctx, func(holder string) (err error) {
			if serves, err = b.servesVolume(ctx, holder); err != nil {
				return err
			}
			return b.s.lab.Stop(ctx, holder)
		})
		lost := load.Stop().Failed
		if err != nil {
			return err
		}
		if serves {
			serving = append(serving, gap)
			continue
		}
		planned, failed = append(planned, gap), failed+lost
	}
	b.less("VIP: crash of the holder", "s", quantile(crashed, 1), 1.0, 0.15, fmt.Sprintf("the worst of %d, as a visitor sees it", len(crashed)))
	b.less("VIP: planned move", "s", quantile(planned, 1), 0.2, 0.2, fmt.Sprintf("the worst of %d", len(planned)))
	b.info("VIP: requests failed during planned moves", "requests", float64(failed), "the goal is 0")
	if len(serving) > 0 {
		b.info("holder stopped that serves the app's volume, too", "s", quantile(serving, 1), "pages that need the volume wait until it is back, after some 3 s here")
	}
	return nil
}

// servesVolume reports whether a machine serves a volume. What needs it waits
// while that is away, whoever holds the address.
func (b *Bench) servesVolume(ctx context.Context, machine string) (bool, error) {
	st, err := b.s.status(ctx, b.s.master())
	return slices.ContainsFunc(st.Volumes, func(v api.VolumeView) bool { return v.PrimaryName == machine }), err
}

// handOver takes the address from its holder and brings the machine back.
func (b *Bench) handOver(ctx context.Context, take func(holder string) error) (time.Duration, error) {
	st, err := b.s.status(ctx, b.s.master())
	if err != nil {
		return 0, err
	}
	watch := watchOutage(ctx, 400*time.Millisecond, b.s.front(b.s.vip(), envTest))
	defer watch.cancel()
	if err := watch.steady(ctx, 5); err != nil {
		return 0, err
	}
	fault := time.Now()
	if err := take(st.VIPNode); err != nil {
		return 0, err
	}
	gap, err := watch.after(ctx, fault, 2*time.Second)
	if err != nil {
		return 0, err
	}
	if err := b.s.lab.Link(st.VIPNode, true); err != nil {
		return 0, err
	}
	if err := b.s.lab.Start(ctx, st.VIPNode); err != nil {
		return 0, err
	}
	return gap, b.s.settled(ctx)
}

// agents cuts the power of the agent with most instances.
func (b *Bench) agents(ctx context.Context) error {
	var took []time.Duration
	for range benchAgents {
		app, err := b.s.app(ctx, envTest)
		if err != nil {
			return err
		}
		on, err := b.s.ready(ctx, b.s.master(), envTest, app.Instances)
		if err != nil {
			return err
		}
		victim := ""
		for _, node := range []string{"ms1", "ms2"} {
			if victim == "" || on[node] > on[victim] {
				victim = node
			}
		}
		began := time.Now()
		if err := b.s.lab.PowerOff(ctx, victim); err != nil {
			return err
		}
		one, err := b.s.replaced(ctx, began, victim, app.Instances)
		if err != nil {
			return err
		}
		took = append(took, one)
		if err := b.s.lab.Start(ctx, victim); err != nil {
			return err
		}
		if err := b.s.settled(ctx); err != nil {
			return err
		}
	}
	b.less("dead agent -> replacement serving, p95", "s", quantile(took, 0.95), 7, 4, fmt.Sprintf("power off; the worst of %d: %s", len(took), list(took)))
	return nil
}

func list(all []time.Duration) string {
	text := ""
	for _, d := range slices.Sorted(slices.Values(all)) {
		text += " " + short(d)
	}
	return text[1:]
}
