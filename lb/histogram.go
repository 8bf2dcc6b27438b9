package lb

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Latencies fall into log-linear buckets of microseconds: eight per power of
// two, so a quantile is at most 12.5 % off, from 1 us to over an hour.
const (
	subBits    = 3
	sub        = 1 << subBits
	maxBuckets = 240
)

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < sub {
		return int(us)
	}
	exp := bits.Len64(us) - subBits - 1
	return min(sub*exp+int(us>>exp), maxBuckets-1)
}

// bucketTop is the largest latency of a bucket.
func bucketTop(i int) time.Duration {
	if i < sub {
		return time.Duration(i) * time.Microsecond
	}
	exp := i/sub - 1
	low := uint64(sub+i%sub) << exp
	return time.Duration(low+(1<<exp)-1) * time.Microsecond
}

// A Histogram counts latencies by bucket. The zero value is empty.
type Histogram struct {
	Buckets map[int]uint64 `json:"buckets,omitempty"`
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o Histogram) {
	if h.Buckets == nil {
		h.Buckets = make(map[int]uint64, len(o.Buckets))
	}
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
}

// Quantile returns the latency under which share q (0..1) of requests lie, or
// zero when nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range h.Buckets {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	var seen uint64
	for i := range maxBuckets {
		if seen += h.Buckets[i]; seen >= max(rank, 1) {
			return bucketTop(i)
		}
	}
	return bucketTop(maxBuckets - 1)
}

// liveHistogram is the one that requests write.
type liveHistogram [maxBuckets]atomic.Uint64

func (h *liveHistogram) snapshot() Histogram {
	out := Histogram{Buckets: map[int]uint64{}}
	for i := range h {
		if n := h[i].Load(); n > 0 {
			out.Buckets[i] = n
		}
	}
	return out
}
