package blob

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is the size of a file system and what unprivileged writers may still
// use of it, in bytes.
type Space struct{ Total, Free int64 }

// DefaultReserve leaves 8 % or 10 GiB free, whichever is less: blobs must
// never fill the disk that the cluster's log is written to.
func DefaultReserve(d Space) int64 { return min(d.Total/100*8, 10<<30) }

// Space returns the state of the file system that holds the blobs.
func (s *Store) Space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return Space{}, fmt.Errorf("free space of %s: %w", s.root, err)
	}
	return Space{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// CheckSpace says whether n more bytes may be written.
func (s *Store) CheckSpace(n int64) error {
	d, err := s.Space()
	if err != nil {
		return err
	}
	if reserve := s.reserve(d); d.Free-n < reserve {
		return fmt.Errorf("%w: %d MiB free, %d MiB of them reserved, %d bytes wanted: delete tags that are no longer needed or enlarge the disk",
			ErrNoSpace, d.Free>>20, reserve>>20, n)
	}
	return nil
}

// groupSync makes one fsync of a directory serve all who wait for it.
type groupSync struct {
	path string

	mu   sync.Mutex // guards next
	next *syncRound
	turn sync.Mutex // held by the one that syncs
}

type syncRound struct {
	done bool
	err  error
}

// Sync returns after an fsync that began after the call.
func (g *groupSync) Sync() error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &syncRound{}
	}
	round := g.next
	g.mu.Unlock()

	g.turn.Lock()
	defer g.turn.Unlock()
	if round.done {
		return round.err
	}
	g.mu.Lock()
	g.next = nil // who comes from now on needs a later fsync
	g.mu.Unlock()
	round.err = syncDir(g.path)
	round.done = true
	return round.err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// startWriteback makes the kernel write the range now, without waiting, so
// that the fsync of a large blob does not begin with gigabytes to write.
// Failure only costs time later.
func startWriteback(f *os.File, offset, n int64) {
	unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
