package raft

import (
	"testing"
	"time"
)

func TestSlowDisk(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(ms int) time.Time { return now.Add(-time.Duration(ms) * time.Millisecond) }
	type write struct{ endedAgo, took int } // ms
	for name, c := range map[string]struct {
		writes  []write
		running int // ms
		slow    bool
	}{
		"idle":                        {nil, 0, false},
		"fast":                        {[]write{{300, 1}, {200, 2}, {100, 1}}, 0, false},
		"one stall":                   {[]write{{3000, 1}}, 1500, false},
		"stall among fast ones":       {[]write{{400, 1}, {300, 900}, {100, 1}}, 0, false},
		"slow":                        {[]write{{1500, 300}, {1200, 300}, {900, 300}}, 0, true},
		"slow long ago":               {[]write{{9500, 300}, {9200, 300}, {8900, 300}}, 0, false},
		"each write lasts long":       {[]write{{1500, 1500}}, 1500, true},
		"slow and then a fast one":    {[]write{{1500, 300}, {1200, 300}, {10, 1}}, 0, true},
		"as many fast ones as slow":   {[]write{{1500, 300}, {1200, 300}, {10, 1}, {5, 1}}, 0, false},
		"the first write of all runs": {nil, 3000, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := &diskLog{}
			for _, w := range c.writes {
				l.recent.add(ago(w.endedAgo), time.Duration(w.took)*time.Millisecond)
			}
			if c.running > 0 {
				l.since.Store(ago(c.running).UnixNano())
			}
			if got := l.slow(now); got != c.slow {
				t.Errorf("slow %v", got)
			}
		})
	}
}
