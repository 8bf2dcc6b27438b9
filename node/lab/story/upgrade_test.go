package story

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/api"
)

// TestRollingUpgrade takes a cluster in use from this binary to the next one, node by node, all the way back, and
// forward again for good. The next binary is this one with a higher protocol level, one more command and one more
// table (build tag nextlevel).
func TestRollingUpgrade(t *testing.T) {
	needs.Root(t)
	s := newStory(t)
	u := &upgrades{Story: s, next: filepath.Join(filepath.Dir(s.o.Dir), "appliance-next")}
	programTagged(t, "NEXT_BINARY", "appliance", u.next, "nextlevel")
	for _, st := range s.Steps()[:3] { // machines, image, deploy
		if err := st.Run(t.Context()); err != nil {
			s.explain(t)
			t.Fatal(err)
		}
	}
	before := s.fingerprint(t)
	load := u.startWrites(t)
	pages, err := s.StartLoad(t.Context(), s.vip(), "app-"+envTest)
	if err != nil {
		t.Fatal(err)
	}
	defer pages.cancel()
	u.step(t, "forward", func(t *testing.T) {
		u.must(t, "upgrade", "hold", "--for", "1h")
		u.roll(t, u.next)
		u.level(t, 2, 3)
		u.future(t, "too early", http.StatusConflict, "does not take this change yet")
	})
	u.step(t, "back", func(t *testing.T) {
		u.roll(t, s.o.Binary)
		u.level(t, 2, 2)
	})
	u.step(t, "forward for good", func(t *testing.T) {
		u.roll(t, u.next)
		u.must(t, "upgrade", "finish")
		u.level(t, 3, 3)
		u.future(t, "in time", http.StatusOK, "in time")
		u.same(t)
	})
	u.step(t, "nothing was disturbed", func(t *testing.T) {
		r := pages.Stop()
		t.Logf("pages: %d requests, %d failed, longest gap %s; %s", r.Requests, r.Failed, short(r.LongestGap), r.FirstError)
		// Whoever stops the node that holds the VIP cuts connections, nine times in this test.
		if float64(r.Failed) > mayFail*float64(r.Requests) || r.Requests < minRequests {
			t.Errorf("%d of %d requests failed: %s", r.Failed, r.Requests, r.FirstError)
		}
		if err := await(t.Context(), stepTime, pages.Verify); err != nil {
			t.Error(err)
		}
		load.stop(t)
		if after := s.fingerprint(t); after != before {
			t.Errorf("instances were replaced:\nbefore %s\nafter  %s", before, after)
		}
	})
	u.step(t, "an old binary is refused", func(t *testing.T) { u.oldRefused(t, "mm3", "ms1") })
}

type upgrades struct {
	*Story
	next string // path of the next binary
}

func (u *upgrades) step(t *testing.T, name string, run func(t *testing.T)) {
	t.Helper()
	began := time.Now()
	if !t.Run(name, run) {
		u.explain(t)
		t.FailNow()
	}
	t.Logf("%s took %s", name, short(time.Since(began)))
}

func (u *upgrades) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := u.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// roll gives every machine another binary, one after the other, and compares the states on the way.
func (u *upgrades) roll(t *testing.T, binary string) {
	t.Helper()
	for i, m := range u.cluster.Machines {
		u.must(t, "lab", "upgrade", m.Name, "--binary", binary)
		if err := u.settled(t.Context()); err != nil {
			t.Fatalf("after %s: %v", m.Name, err)
		}
		if i == 1 || i == len(u.cluster.Machines)-1 { // both binaries vote; all are the same
			u.same(t)
		}
	}
}

// same has all nodes compare their states.
func (u *upgrades) same(t *testing.T) {
	t.Helper()
	err := await(t.Context(), stepTime, func(ctx context.Context) error { // a leader may just be elected
		res, err := u.Command(ctx, "upgrade", "check", "--json", "--address", u.masterAPI())
		if err != nil {
			return err
		}
		var check api.StateCheck
		if json.Unmarshal([]byte(res.Stdout), &check) != nil {
			return fmt.Errorf("exit code %d: %s", res.Code, res.Stderr)
		}
		if len(check.Diverged) > 0 {
			t.Fatalf("the states differ: %+v", check)
		}
		if check.Nodes != len(u.cluster.Machines) {
			return fmt.Errorf("%d nodes were compared", check.Nodes)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (u *upgrades) masterAPI() string {
	return "unix://" + filepath.Join(u.o.Dir, u.master(), "run", "api.sock")
}

// level checks what the cluster has and what all nodes speak.
func (u *upgrades) level(t *testing.T, has, possible int) {
	t.Helper()
	for _, m := range []string{"mm1", "ms4"} {
		err := await(t.Context(), stepTime, func(ctx context.Context) error {
			st, err := get[api.UpgradeStatus](ctx, u.api(m), "/upgrade")
			if err == nil && (st.Level != has || st.Possible != possible || len(st.Missing) > 0) {
				err = fmt.Errorf("%s: %+v", m, st)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// future asks for a change that only the next level has.
func (u *upgrades) future(t *testing.T, name string, code int, want string) {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"name": name, "value": "x"})
	resp, err := u.api(u.master()).http.Post("http://appliance"+api.Prefix+"/upgrade/future", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != code || !strings.Contains(text.String(), want) {
		t.Errorf("answered %s: %s", resp.Status, text.String())
	}
}

// oldRefused starts the old binary on some machines: it must say why it ends, before it changes anything.
func (u *upgrades) oldRefused(t *testing.T, machines ...string) {
	for _, m := range machines {
		u.must(t, "lab", "upgrade", m, "--binary", u.o.Binary)
		err := await(t.Context(), stepTime, func(ctx context.Context) error {
			var b bytes.Buffer
			if err := u.lab.Logs(ctx, m, 20, false, &b); err != nil {
				return err
			}
			if !strings.Contains(b.String(), "this version is too old for the cluster") {
				return fmt.Errorf("the log of %s says: %s", m, b.String())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		u.must(t, "lab", "upgrade", m, "--binary", u.next)
		if err := u.settled(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	u.same(t)
	if after, err := get[map[string]string](t.Context(), u.api("mm3"), "/upgrade/future"); err != nil || after["in time"] != "x" {
		t.Errorf("the change of the new level is gone: %v %v", after, err)
	}
}

// writes are keys that are set on every machine without an end. What fails is tried again, as clients do; it may
// not fail for long.
type writes struct {
	story  *Story
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]string
	retries int
	slowest time.Duration
	failed  []string
}

// mayFail is the share of requests for pages that may fail, because nobody repeats them.
const mayFail = 0.02

// writeLimit is longer than an election on a busy machine and the restart of the node that the client talks to.
const writeLimit = 30 * time.Second

func (u *upgrades) startWrites(t *testing.T) *writes {
	ctx, cancel := context.WithCancel(t.Context())
	w := &writes{story: u.Story, cancel: cancel, acked: map[string]string{}}
	for _, m := range u.cluster.Machines {
		client := u.api(m.Name)
		w.ended.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.one(ctx, client, fmt.Sprintf("rolling/%s/%d", m.Name, n), fmt.Sprint(n*n))
				pauseFor(ctx, 20*time.Millisecond)
			}
		})
	}
	t.Cleanup(func() { cancel(); w.ended.Wait() })
	return w
}

func (w *writes) one(ctx context.Context, client *apiClient, key, value string) {
	began := time.Now()
	for try := 0; ; try++ {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := client.put(once, key, value)
		cancel()
		took := time.Since(began)
		w.mu.Lock()
		w.slowest = max(w.slowest, took)
		if err == nil {
			w.acked[key] = value
		} else {
			w.retries++
		}
		over := err != nil && took > writeLimit
		if over {
			w.failed = append(w.failed, fmt.Sprintf("%s: %v", key, err))
		}
		w.mu.Unlock()
		if err == nil || over || ctx.Err() != nil {
			return
		}
		pauseFor(ctx, 100*time.Millisecond)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stop ends the writing and looks for every acknowledged one on every master.
func (w *writes) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.ended.Wait()
	t.Logf("%d writes acknowledged, %d tries were repeated, the slowest took %s", len(w.acked), w.retries, short(w.slowest))
	if len(w.acked) < minWrites {
		t.Errorf("only %d writes were acknowledged: too few to say anything", len(w.acked))
	}
	for _, f := range w.failed {
		t.Errorf("a write failed in spite of %s of repetition: %s", writeLimit, f)
	}
	for _, m := range w.story.cluster.Masters() {
		have := w.story.keys(t, m.Name, "rolling/")
		var lost []string
		for key, value := range w.acked {
			if have[key] != value {
				lost = append(lost, key)
			}
		}
		slices.Sort(lost)
		if len(lost) > 0 {
			t.Errorf("%s has lost %d of %d acknowledged writes: %v", m.Name, len(lost), len(w.acked), lost[:min(5, len(lost))])
		}
	}
}
