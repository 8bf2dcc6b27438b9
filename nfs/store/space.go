package store

import (
	"syscall"
	"time"
)

// space answers whether the disk has room before anything is logged, so that "no space" leaves
// nothing half done. Guarded by the volume's lock.
type space struct {
	dir     string
	reserve uint64
	now     func() time.Time
	checked time.Time
	free    uint64 // at the last check, minus what was promised since
	total   uint64
}

const spaceAge = time.Second

// perRecord is added to every request for the record's own size and file system overhead.
const perRecord = 8 << 10

// need promises n bytes, which are stored twice: in the log and in the data file.
func (s *space) need(n uint64) error {
	want := 2*n + perRecord
	if now := s.now(); now.Sub(s.checked) > spaceAge || s.free < s.reserve+16*want {
		s.refresh(now)
	}
	if s.free < s.reserve+want {
		return syscall.ENOSPC
	}
	s.free -= want
	return nil
}

func (s *space) refresh(now time.Time) {
	var st syscall.Statfs_t
	if syscall.Statfs(s.dir, &st) != nil {
		s.free = 0
		return
	}
	s.checked, s.free, s.total = now, st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
}

// usable is what the disk has left above the reserve, and its size.
func (s *space) usable() (free, total uint64) {
	s.refresh(s.now())
	return s.free - min(s.free, s.reserve), s.total
}
