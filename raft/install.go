package raft

import (
	"errors"
	"fmt"
	"time"
)

// What a master ends with, whose raft believes in another end than the log has.
var (
	// ErrLostEnd says that hashicorp/raft believes in entries that it has removed itself.
	ErrLostEnd = errors.New("the end of the log was replaced by a snapshot")
	// ErrUnknownEnd says that the log has entries that hashicorp/raft knows nothing of.
	ErrUnknownEnd = errors.New("the log goes on beyond what this master knows of it")
)

// wrongEndLimit is how long raft may believe in an end of the log that is not there. While it replaces or
// stores entries that is so for a moment.
const wrongEndLimit = time.Second

// wrongEnd notices that raft refuses every append since it believes in another end than the log has, which
// starting again puts right, as the end on disk is the true one:
//   - ErrLostEnd, which hashicorp/raft 1.7.3 does not notice: InstallSnapshot empties a monotonic log, but when
//     that log reached beyond the snapshot (entries of a deposed leader that nobody else has), raft keeps the
//     old end in memory. It then finds none of the entries before an append, refuses all of them, and is sent
//     the same snapshot again and again.
//   - ErrUnknownEnd: a write failed after all and the log has kept the entries. diskLog knows of the one way
//     in which that happens (ahead); this finds any other.
type wrongEnd struct {
	since    time.Time // zero while all is well
	believed uint64    // since then
}

// check returns an error when raft's end has been wrong for too long. busy says that a write is going on, or
// that it is known why the ends differ.
func (l *wrongEnd) check(now time.Time, believed, stored uint64, busy bool) error {
	switch {
	case busy || believed == stored:
		l.since = time.Time{}
	case l.since.IsZero() || believed != l.believed: // a busy log is only seen between two steps
		l.since, l.believed = now, believed
	case now.Sub(l.since) < wrongEndLimit:
	case believed > stored:
		return fmt.Errorf("%w that ends at %d, and raft still looks for entries up to %d: this master has to start again to see what its log holds", ErrLostEnd, stored, believed)
	default:
		return fmt.Errorf("%w: it ends at %d, and raft appends after %d: this master has to start again to see what its log holds", ErrUnknownEnd, stored, believed)
	}
	return nil
}

// checkEnd compares what raft believes with what the log and the last snapshot hold.
func (n *Node) checkEnd(l *wrongEnd, now time.Time) error {
	believed := n.raft.LastIndex()
	stored, err := n.disk.lastIndex()
	if err != nil {
		return nil // a failing disk is the business of others
	}
	if stored < believed {
		stored = max(stored, n.Stats().Snapshot)
	}
	w := n.disk.watch
	return l.check(now, believed, stored, w.stuck(now) > 0 || w.apart() != nil)
}
