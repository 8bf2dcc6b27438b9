package node

import (
	"reflect"
	"testing"
	"time"

	"appliance/lb"
)

func count(requests, failed uint64, buckets map[int]uint64) lb.Count {
	return lb.Count{Requests: requests, Failed: failed, Latency: lb.Histogram{Buckets: buckets}}
}

func TestSince(t *testing.T) {
	cases := []struct {
		name              string
		now, before, want lb.Count
	}{
		{"nothing before", count(5, 1, map[int]uint64{3: 5}), lb.Count{}, count(5, 1, map[int]uint64{3: 5})},
		{"nothing since", count(5, 1, map[int]uint64{3: 5}), count(5, 1, map[int]uint64{3: 5}), count(0, 0, map[int]uint64{3: 0})},
		{"some since", count(9, 2, map[int]uint64{3: 5, 7: 4}), count(5, 1, map[int]uint64{3: 5}), count(4, 1, map[int]uint64{3: 0, 7: 4})},
		{"a proxy began anew", count(3, 1, map[int]uint64{3: 3}), count(5, 0, map[int]uint64{3: 5}), count(3, 1, map[int]uint64{3: 3})},
		{"one of several began anew", count(6, 0, map[int]uint64{3: 6}), count(5, 2, map[int]uint64{2: 5}), count(1, 0, map[int]uint64{3: 6})},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := since(c.now, c.before); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// The first traffic of a release may be older than the deployment, when it is
// scaled or rolled back to: then it says nothing.
func TestSinceKeepsTheFirstRequest(t *testing.T) {
	at := time.Unix(100, 0)
	if got := since(lb.Count{Requests: 1, First: at}, lb.Count{}); !got.First.Equal(at) {
		t.Error(got.First)
	}
}
