package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"appliance/discovery/gossip"
)

// A death among seven nodes that have nothing else to do is known everywhere in two to three seconds. One of six
// nodes probes the dead one in the next 500 ms, two times in three; its probe fails after 500 ms more; 1.5 s
// of suspicion follow, within which another one confirms it; the news takes 0.2 s. All six may have probed it
// just before. That none does so for 1.5 s, and a death takes more than 3.5 s, happens once in 50 times; that
// none does so for 3 s once in 50,000.
func TestDeathIsKnownInTwoSeconds(t *testing.T) {
	const (
		deaths  = 21
		longest = 6 * time.Second
		average = 3 * time.Second
	)
	var took []time.Duration
	for seed := range uint64(deaths) {
		leak := bubble(t, func() {
			d, err := death(seed+1, int(seed)%7)
			if took = append(took, d); err != nil {
				t.Errorf("seed %d: %v", seed+1, err)
			}
		})
		if leak != nil {
			t.Error(leak)
		}
	}
	total := time.Duration(0)
	for _, d := range took {
		total += d
	}
	if slices.Max(took) > longest || total/deaths > average {
		t.Errorf("%d deaths are known after %v, %v on the average, want %v at most and %v on the average", deaths, took, total/deaths, longest, average)
	}
	t.Log(took)
}

// death has seven nodes meet, ends one of them without a word, and tells how long it was until all others
// knew.
func death(seed uint64, victim int) (time.Duration, error) {
	n, hosts := NewNetwork(seed), []string{"m1", "m2", "m3", "m4", "s1", "s2", "s3"}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		pause(context.Background(), 10*time.Second) // memberlist ends its last probes after it was closed
	}()
	var nodes []*gossip.Gossip
	for _, h := range hosts {
		g, err := gossip.New(gossip.Config{
			ID: h, Name: h, Role: "master", Cluster: "sim", Key: bytes.Repeat([]byte{1}, 32), Bind: ipOf(h).String(), Port: gossipNumber,
			Seeds: func() []string { return []string{gossipAddr("m1"), gossipAddr("m2")} }, Transport: n.Boot(h).Gossip(),
		})
		if err != nil {
			return 0, err
		}
		wg.Go(func() { _ = g.Run(ctx) }) // ends with ctx only
		nodes = append(nodes, g)
	}
	known := func(alive bool) error {
		for i, g := range nodes {
			list := g.Members()
			k := slices.IndexFunc(list, func(m gossip.Member) bool { return m.ID == hosts[victim] })
			if i != victim && (k < 0 || list[k].Alive != alive) {
				return fmt.Errorf("%s does not see %s alive: %v", hosts[i], hosts[victim], alive)
			}
		}
		return nil
	}
	wait := func(alive bool, limit time.Duration) (time.Duration, error) {
		for begin := time.Now(); ; pause(ctx, 10*time.Millisecond) {
			err, took := known(alive), time.Since(begin)
			if err == nil || took > limit {
				return took, err
			}
		}
	}
	pause(ctx, 20*time.Second+time.Duration(seed*137)*time.Millisecond) // until nobody settles any more
	if _, err := wait(true, time.Second); err != nil {
		return 0, err
	}
	n.Stop(hosts[victim], false)
	return wait(false, 20*time.Second)
}
