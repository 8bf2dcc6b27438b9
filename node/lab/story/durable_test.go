package story

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/vagrant"
)

// testLostMajority stops two of three masters: nothing can be changed, and
// everything that runs goes on.
func testLostMajority(t *testing.T, s *Story) {
	masters := s.cluster.Masters()
	gone := []string{masters[1].Name, masters[2].Name}
	left := masters[0].Name
	if _, err := s.run(t.Context(), append([]string{"lab", "stop"}, gone...)...); err != nil {
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
	t.Run("status says so", func(t *testing.T) {
		res, err := s.Command(t.Context(), "status")
		if err != nil || res.Code != 0 || !strings.Contains(res.Stdout, "warning") {
			t.Errorf("%v %+v", err, res)
		}
	})
	t.Run("apps are served and names resolved", func(t *testing.T) {
		for _, env := range []string{envTest, envProd} {
			app, err := s.app(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []string{s.vip(), s.addr("ms1") + ":80", s.addr(left) + ":80"} {
				if err := await(t.Context(), 5*time.Second, s.front(at, env)); err != nil {
					t.Errorf("%s at %s: %v", env, at, err)
				}
			}
			for _, m := range []string{left, "ms1", "ms4"} {
				n, err := srvCount(t.Context(), s.addr(m), appName+"-"+env)
				if err != nil || n != app.Instances {
					t.Errorf("the DNS of %s knows %d of %d instances of %s: %v", m, n, app.Instances, env, err)
				}
			}
		}
	})
	began := time.Now()
	if _, err := s.run(t.Context(), append([]string{"lab", "start"}, gone...)...); err != nil {
		t.Fatal(err)
	}
	err := await(t.Context(), stepTime, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return s.api(left).put(ctx, "story/found", "x")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("writes are accepted again %s after the masters came back", short(time.Since(began)))
	if err := s.settled(t.Context()); err != nil {
		t.Error(err)
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
