package story

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/vagrant"
)

// testLostMasters stops masters until a majority is gone: nothing can be changed,
// everything that runs goes on, and the nodes that are left say so.
func testLostMasters(t *testing.T, s *Story, gone int, says string) {
	fronts, resolvers, asked := []string{s.vip(), s.addr("ms1") + ":80"}, []string{"ms1", "ms4"}, "ms1"
	var names []string
	for _, m := range slices.Backward(s.cluster.Masters()) {
		if len(names) < gone {
			names = append(names, m.Name)
			continue
		}
		fronts, resolvers, asked = append(fronts, m.Address.String()+":80"), append(resolvers, m.Name), m.Name
	}
	instances := map[string]int{}
	for _, env := range []string{envTest, envProd} {
		app, err := s.app(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		instances[env] = app.Instances
	}
	if _, err := s.run(t.Context(), append([]string{"lab", "stop"}, names...)...); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"write a key", []string{"kv", "put", "story/lost", "x"}, []string{"cannot take changes", "leader", "majority of the masters"}},
		{"scale", []string{"scale", appName, "--env", envTest, "5"}, []string{"cannot take changes", "majority of the masters"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.refused(t, 1, tt.want, func(ctx context.Context) (Result, error) { return s.Command(ctx, tt.args...) })
		})
	}
	for _, verb := range []string{"status", "doctor"} {
		t.Run(verb+" says so", func(t *testing.T) { s.says(t, verb, says) })
	}
	t.Run("apps are served and names resolved", func(t *testing.T) {
		for env, want := range instances {
			s.serves(t, env, want, fronts, resolvers)
		}
	})
	began := time.Now()
	if _, err := s.run(t.Context(), append([]string{"lab", "start"}, names...)...); err != nil {
		t.Fatal(err)
	}
	err := await(t.Context(), stepTime, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return s.api(asked).put(ctx, "story/found", "x")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("writes are accepted again %s after the masters came back", short(time.Since(began)))
	if err := s.settled(t.Context()); err != nil {
		t.Error(err)
	}
}

// sayTime is how long the loss of masters may go unsaid: gossip finds them dead,
// and the doctor waits for a restart first.
const sayTime = 20 * time.Second

// says waits until a command tells it.
func (s *Story) says(t *testing.T, verb, what string) {
	t.Helper()
	err := await(t.Context(), sayTime, func(ctx context.Context) error {
		res, err := s.Command(ctx, verb)
		switch {
		case err != nil:
			return err
		case verb == "status" && (res.Code != 0 || !strings.Contains(res.Stdout, "warning")), !strings.Contains(res.Stdout, what):
			return fmt.Errorf("%+v", res)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// serves fails unless the app of an environment answers at all fronts, and the
// DNS of some machines knows all its instances.
func (s *Story) serves(t *testing.T, env string, instances int, fronts, resolvers []string) {
	t.Helper()
	for _, at := range fronts {
		if err := await(t.Context(), 5*time.Second, s.front(at, env)); err != nil {
			t.Errorf("%s at %s: %v", env, at, err)
		}
	}
	for _, m := range resolvers {
		n, err := srvCount(t.Context(), s.addr(m), appName+"-"+env)
		if err != nil || n != instances {
			t.Errorf("the DNS of %s knows %d of %d instances of %s: %v", m, n, instances, env, err)
		}
	}
}

// testAgentProcess kills every agent's process: containers, volumes and
// requests must not notice.
func testAgentProcess(t *testing.T, s *Story) {
	before := s.fingerprint(t)
	load, err := s.StartLoad(t.Context(), s.vip(), "app-"+envTest)
	if err != nil {
		t.Fatal(err)
	}
	defer load.cancel()
	for _, m := range s.cluster.Machines {
		if m.Role != vagrant.RoleAgent {
			continue
		}
		if _, err := s.run(t.Context(), "lab", "kill", m.Name); err != nil {
			t.Fatal(err)
		}
	}
	// The nodes come back after a second; nothing may happen until then.
	time.Sleep(1500 * time.Millisecond)
	if err := s.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.finish(t.Context(), load); err != nil {
		t.Error(err)
	}
	if after := s.fingerprint(t); after != before {
		t.Errorf("instances were replaced:\nbefore %s\nafter  %s", before, after)
	}
}

const (
	killFor   = 12 * time.Second
	minWrites = 200 // fewer acknowledged writes prove nothing
)

// testAcknowledgedWrites kills random nodes at random moments while every
// node accepts writes. Whatever was acknowledged must be there afterwards, on
// every master.
func testAcknowledgedWrites(t *testing.T, s *Story) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ctx, cancel := context.WithTimeout(t.Context(), killFor)
	defer cancel()
	var mu sync.Mutex
	acked := map[string]string{}
	var writers sync.WaitGroup
	for _, m := range s.cluster.Machines {
		api := s.api(m.Name)
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key, value := fmt.Sprintf("durable/%s/%d", m.Name, n), fmt.Sprint(n*n)
				try, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
				err := api.put(try, key, value)
				cancel()
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				acked[key] = value
				mu.Unlock()
			}
		})
	}
	kills := 0
	for ctx.Err() == nil {
		victim := s.cluster.Machines[random.IntN(len(s.cluster.Machines))].Name
		if err := s.lab.Kill(ctx, victim, false); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		kills++
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(300+random.IntN(1200)) * time.Millisecond):
		}
	}
	writers.Wait()
	if err := s.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes acknowledged, %d nodes killed", len(acked), kills)
	if len(acked) < minWrites {
		t.Errorf("only %d writes were acknowledged: too few to say anything", len(acked))
	}
	for _, m := range s.cluster.Masters() {
		have := s.keys(t, m.Name, "durable/")
		lost := 0
		for key, value := range acked {
			if have[key] != value {
				if lost++; lost == 1 {
					t.Errorf("%s: %s is %q, %q was acknowledged", m.Name, key, have[key], value)
				}
			}
		}
		if lost > 0 {
			t.Errorf("%s has lost %d of %d acknowledged writes", m.Name, lost, len(acked))
		}
	}
}

// keys reads all keys below a prefix from one master, consistently.
func (s *Story) keys(t *testing.T, master, prefix string) map[string]string {
	t.Helper()
	text, err := s.api(master).do(t.Context(), http.MethodGet, "/v1/kv/"+prefix+"?recurse&consistent", "")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Key, Value string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, kv := range list {
		value, err := base64.StdEncoding.DecodeString(kv.Value)
		if err != nil {
			t.Fatal(err)
		}
		have[kv.Key] = string(value)
	}
	return have
}
