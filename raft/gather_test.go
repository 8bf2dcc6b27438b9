package raft

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// rounds records how things were gathered; each round takes a while.
type rounds struct {
	*gather[int]
	began []time.Duration
	of    [][]int
}

func newRounds(takes time.Duration) *rounds {
	r, start, mu := &rounds{}, time.Now(), make(chan struct{}, 1)
	r.gather = &gather[int]{hold: 10 * time.Millisecond, most: 4, rounds: 3, size: func(x int) int { return x }, run: func(round []int) {
		mu <- struct{}{}
		r.began, r.of = append(r.began, time.Since(start)), append(r.of, round)
		<-mu
		time.Sleep(takes)
	}}
	return r
}

func (r *rounds) check(t *testing.T, of [][]int, began ...time.Duration) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	if !slices.EqualFunc(r.of, of, slices.Equal) || !slices.Equal(r.began, began) {
		t.Errorf("rounds %v began at %v, want %v at %v", r.of, r.began, of, began)
	}
}

func TestGather(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		takes time.Duration
		add   [][]int // what comes at each millisecond
		of    [][]int
		began []time.Duration
	}{
		{"one alone does not wait", 5 * ms, [][]int{{1}}, [][]int{{1}}, []time.Duration{0}},
		{"those that come meanwhile go together at its end", 5 * ms, [][]int{{1}, {2}, {3, 4}}, [][]int{{1}, {2, 3, 4}}, []time.Duration{0, 5 * ms}},
		{"a slow round is waited for only so long", 50 * ms, [][]int{{1}, {2}, {3}}, [][]int{{1}, {2, 3}}, []time.Duration{0, 10 * ms}},
		{"a round is bounded", 5 * ms, [][]int{{1}, {2, 3, 4, 5, 6}}, [][]int{{1}, {2, 3, 4, 5}, {6}}, []time.Duration{0, 5 * ms, 10 * ms}},
		{"a round is bounded in bytes", 5 * ms, [][]int{{1}, {maxBatchBytes, 3}}, [][]int{{1}, {maxBatchBytes}, {3}}, []time.Duration{0, 5 * ms, 10 * ms}},
		{"rounds are bounded", 50 * ms, [][]int{{1}, {2, 2, 2, 2, 3, 3, 3, 3, 4}}, [][]int{{1}, {2, 2, 2, 2}, {3, 3, 3, 3}, {4}}, []time.Duration{0, 10 * ms, 20 * ms, 50 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRounds(c.takes)
				for _, now := range c.add {
					for _, x := range now {
						r.add(x)
					}
					synctest.Wait()
					time.Sleep(ms)
				}
				r.check(t, c.of, c.began...)
			})
		})
	}
}

func TestGatherDropsWhatIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRounds(5 * time.Millisecond)
		for x := range 5 {
			r.add(x)
		}
		if r.drop(0) || !r.drop(2) || r.drop(2) || !r.drop(4) {
			t.Error("dropped what is in a round, or not what waits")
		}
		r.check(t, [][]int{{0}, {1, 3}}, 0, 5*time.Millisecond)
		r.add(6)
		r.add(7)
		r.drop(7) // the last that waited
		time.Sleep(time.Second)
		synctest.Wait()
		if len(r.of) != 3 || r.open != 0 {
			t.Errorf("rounds %v, %d open", r.of, r.open)
		}
	})
}
