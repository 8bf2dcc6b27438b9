package raft

import (
	"errors"
	"fmt"
	"time"
)

// ErrLostEnd says that hashicorp/raft believes in entries that it has removed itself.
var ErrLostEnd = errors.New("the end of the log was replaced by a snapshot")

// lostEndLimit is how long raft may believe in an end of the log that is not there. While it replaces entries
// that is so for a moment.
const lostEndLimit = time.Second

// lostEnd notices what hashicorp/raft 1.7.3 does not: InstallSnapshot empties a monotonic log, but when that
// log reached beyond the snapshot (entries of a deposed leader that nobody else has), raft keeps the old end
// in memory. It then finds none of the entries before an append, refuses all of them, and is sent the same
// snapshot again and again. The end on disk is right, so starting again is all that is needed.
type lostEnd struct {
	since time.Time // zero while all is well
}

// check returns an error when raft's end has been wrong for too long. busy says that a write is going on.
func (l *lostEnd) check(now time.Time, believed, stored uint64, busy bool) error {
	switch {
	case busy || believed <= stored:
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = now
	case now.Sub(l.since) >= lostEndLimit:
		return fmt.Errorf("%w that ends at %d, and raft still looks for entries up to %d: this master has to start again to see what its log holds", ErrLostEnd, stored, believed)
	}
	return nil
}

// checkEnd compares what raft believes with what the log and the last snapshot hold.
func (n *Node) checkEnd(l *lostEnd, now time.Time) error {
	believed := n.raft.LastIndex()
	stored, err := n.disk.lastIndex()
	if err != nil {
		return nil // a failing disk is the business of others
	}
	if stored < believed {
		stored = max(stored, n.Stats().Snapshot)
	}
	return l.check(now, believed, stored, n.disk.watch.stuck(now) > 0)
}
