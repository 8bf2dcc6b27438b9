package raft_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/raft/rafttest"
)

// BenchmarkDurableWrites64 is the row "durable KV writes/s, three masters, 64 clients": real TLS, real
// fsync, clients on the leader and on a follower.
func BenchmarkDurableWrites64(b *testing.B) {
	for _, where := range []string{"leader", "follower"} {
		b.Run(where, func(b *testing.B) {
			c := rafttest.New(b, 3).Up()
			m := c.Leader()
			if where == "follower" {
				m = c.Follower()
			}
			payload := make([]byte, 128)
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for range 64 {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, _, err := m.Node.Propose(context.Background(), payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// BenchmarkLeaderLoss is the row "leader loss to first accepted write".
func BenchmarkLeaderLoss(b *testing.B) {
	c := rafttest.New(b, 3).Up()
	var took []time.Duration
	for b.Loop() {
		lead := c.Leader()
		rafttest.Put(b, lead.Node, "before")
		other := c.Follower()
		lead.Stop(false)
		start := time.Now()
		rafttest.Put(b, other.Node, "after")
		took = append(took, time.Since(start))
		lead.Start()
		rafttest.Put(b, lead.Node, "back")
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// BenchmarkLinearizableRead is a confirmed read on the leader and on a follower.
func BenchmarkLinearizableRead(b *testing.B) {
	c := rafttest.New(b, 3).Up()
	for _, where := range []string{"leader", "follower"} {
		m := c.Leader()
		if where == "follower" {
			m = c.Follower()
		}
		b.Run(where, func(b *testing.B) {
			for b.Loop() {
				if err := m.Node.Linearize(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
