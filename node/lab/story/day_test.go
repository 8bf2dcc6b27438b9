package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/vagrant"
)

// TestMastersAwayForADay stops all masters and sets every clock 25 hours ahead: all certificates run out. Apps,
// DNS and ingress go on, also on a node whose process and container were killed meanwhile, and the nodes say how
// things stand. When the masters start, with certificates that ran out too, the cluster comes together by itself.
func TestMastersAwayForADay(t *testing.T) {
	needs.Root(t)
	u := &upgrades{Story: newStoryOf(t, "SKEWED_BINARY", "skewed")}
	for _, st := range u.Steps()[:4] { // machines, image, deploy, session
		if err := st.Run(t.Context()); err != nil {
			u.explain(t)
			t.Fatal(err)
		}
	}
	var all, masters, agents []string
	fronts := []string{u.vip()}
	for _, m := range u.cluster.Machines {
		all = append(all, m.Name)
		if m.Role == vagrant.RoleMaster {
			masters = append(masters, m.Name)
			continue
		}
		agents, fronts = append(agents, m.Name), append(fronts, m.Address.String()+":80")
	}
	u.step(t, "a day without masters", func(t *testing.T) {
		u.must(t, append([]string{"lab", "stop"}, masters...)...)
		u.must(t, append(append([]string{"chaos", "clock"}, all...), "--dir", u.o.Dir, "--offset=25h", "--for=10m", "--accept-risk=lose-quorum")...)
		u.dies(t, "ms1")
		u.must(t, "lab", "kill", "ms2")
	})
	u.step(t, "apps are served and names resolved", func(t *testing.T) { u.serves(t, envTest, firstUsers, fronts, agents) })
	for _, m := range []string{"ms1", "ms2"} { // ms2 has started anew
		u.step(t, m+" says so", func(t *testing.T) {
			u.tells(t, m, "status", "out of touch with the masters", "0 of 3 masters answer", "it is what the node knew")
			u.tells(t, m, "doctor", "0 of 3 masters answer", m+": the node's certificate ran out 1h")
		})
	}
	u.step(t, "the masters come back", func(t *testing.T) {
		u.must(t, append([]string{"lab", "start"}, masters...)...)
		began := time.Now()
		if err := await(t.Context(), stepTime, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return u.api("ms2").put(ctx, "story/day", "x")
		}); err != nil {
			t.Fatal(err)
		}
		t.Logf("writes are accepted %s after the masters started", short(time.Since(began)))
		if err := errors.Join(u.settled(t.Context()), u.everyInstance(t.Context(), firstUsers)); err != nil {
			t.Error(err)
		}
	})
}

// tells waits until a command on a machine says all of it, and does not blame the network for
// certificates, nor has forgotten as of when it knows.
func (u *upgrades) tells(t *testing.T, machine, verb string, want ...string) {
	t.Helper()
	err := await(t.Context(), sayTime, func(ctx context.Context) error {
		res, err := u.Command(ctx, "lab", "exec", machine, "appliance", verb)
		text := res.Stdout + res.Stderr
		for _, w := range want {
			if !strings.Contains(text, w) {
				err = errors.Join(err, fmt.Errorf("%s on %s does not say %q:\n%s", verb, machine, w, text))
			}
		}
		for _, w := range []string{"does not answer the doctor", "before it started", "(for -"} {
			if strings.Contains(text, w) {
				err = errors.Join(err, fmt.Errorf("%s on %s says %q:\n%s", verb, machine, w, text))
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// dies kills a container of the app on a machine and waits until there are as many again.
func (u *upgrades) dies(t *testing.T, machine string) {
	t.Helper()
	running := func(ctx context.Context) []string {
		out, _ := u.lab.Output(ctx, machine, "sh", "-c", "grep -lx notejam /proc/[0-9]*/comm | cut -d/ -f3") // one may end meanwhile
		return strings.Fields(string(out))
	}
	before := running(t.Context())
	if len(before) == 0 {
		t.Fatal("no container runs on ", machine)
	}
	u.must(t, "lab", "exec", machine, "kill", "-9", before[0])
	if err := await(t.Context(), stepTime, func(ctx context.Context) error {
		if now := running(ctx); len(now) != len(before) || slices.Contains(now, before[0]) {
			return fmt.Errorf("%s runs %v, before %v", machine, now, before)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
