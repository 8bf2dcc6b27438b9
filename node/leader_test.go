package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// A master that led for a moment may have its word forwarded to its successor, who has said already that it leads.
func TestLateWordOfAFormerLeaderDoesNotStay(t *testing.T) {
	masters, agent, _ := newPeers(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	do := func(c command.Command) {
		t.Helper()
		if _, err := command.Do(ctx, proposer{masters[0].core}, c); err != nil {
			t.Fatal(err)
		}
	}
	do(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}})
	for _, id := range []string{"m0", "m9"} {
		do(&command.RegisterNode{Node: model.Node{ID: id, Name: id, Role: model.RoleMaster, Addr: id}, At: time.Now()})
	}
	n := masters[0].wired()
	n.proposer, n.log, n.cfg.Data = proposer{masters[0].core}, quiet(), t.TempDir()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { n.tellLeader(ctx) })
	told := func() {
		t.Helper()
		for toldLeader(agent.store.Snapshot()) != "m0" {
			if pause(ctx, time.Millisecond); ctx.Err() != nil {
				t.Fatal("the log does not say who leads")
			}
		}
	}
	told()
	time.Sleep(3 * tellPause) // it has seen its own word
	do(&command.SetLeader{Node: "m9", At: time.Now()})
	if err := agent.core.Linearize(ctx); err != nil {
		t.Fatal(err)
	}
	told()
}
