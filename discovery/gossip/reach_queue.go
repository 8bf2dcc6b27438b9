package gossip

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// resend times the logarithm of the size is how often a row is passed on.
	resend = 3
	// leastRow is what the shortest row needs: where less is free, none is tried.
	leastRow = 10
)

// rowQueue holds the rows on their way to all, at most one of each node. It
// does what memberlist's TransmitLimitedQueue is made for: that one loses
// messages of equal length when the only one waiting is replaced
// (github.com/hashicorp/memberlist/pull/263 and 322), and rows are often of
// equal length. Safe for concurrent use; the zero value is empty.
type rowQueue struct {
	mu   sync.Mutex
	rows []outgoing
}

type outgoing struct {
	row  Row
	sent int // times
}

// put adds a row, or puts it in the place of an older one of the same node.
func (q *rowQueue) put(row Row) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.rows, func(o outgoing) bool { return o.row.From == row.From })
	switch {
	case i < 0:
		q.rows = append(q.rows, outgoing{row: row})
	case row.Version > q.rows[i].row.Version:
		q.rows[i] = outgoing{row: row}
	}
}

// take returns the messages for one datagram of a cluster of this size: the
// least sent first, as many as fit into limit bytes with overhead bytes before
// each. A row that was taken often enough is gone.
func (q *rowQueue) take(overhead, limit, size int) (out [][]byte) {
	times := resend * int(math.Ceil(math.Log10(float64(size+1))))
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.SortStableFunc(q.rows, func(a, b outgoing) int { return cmp.Compare(a.sent, b.sent) })
	for i := range q.rows {
		if limit < overhead+leastRow {
			break
		}
		// The row tells its age when it is sent, not when it was queued.
		msg := q.rows[i].row.encode([]byte{tagRow}, now)
		if overhead+len(msg) > limit {
			continue
		}
		limit -= overhead + len(msg)
		out = append(out, msg)
		q.rows[i].sent++
	}
	q.rows = slices.DeleteFunc(q.rows, func(o outgoing) bool { return o.sent >= times })
	return out
}
