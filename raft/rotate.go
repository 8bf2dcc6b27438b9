package raft

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

// rotated is the metadata of the log after its last segment was sealed. raft-wal seals a segment with the
// append that fills it and notes that in the metadata later. After a power cut in between it opens the
// segment as the one to append to, and refuses every append.
func rotated(st types.PersistentState, s *segment, now time.Time) types.PersistentState {
	st.Segments = slices.Clone(st.Segments)
	tail := &st.Segments[len(st.Segments)-1]
	tail.SealTime, tail.IndexStart = now, s.indexStart
	tail.MaxIndex = tail.BaseIndex + uint64(len(s.entries)) - 1
	next := types.SegmentInfo{ID: st.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		Codec: tail.Codec, CreateTime: now, SizeLimit: tail.SizeLimit}
	st.NextSegmentID++
	st.Segments = append(st.Segments, next)
	return st
}

// Mend does for a simulated disk what the opening of real files does before raft-wal sees them: it wipes
// an unfinished write at the end of the log and finishes a rotation. open is os.OpenFile for the file of a
// segment; the metadata that comes back is the caller's to store.
func Mend(open func(types.SegmentInfo) (types.WritableFile, error), st types.PersistentState, now time.Time) (types.PersistentState, error) {
	if len(st.Segments) == 0 || !st.Segments[len(st.Segments)-1].SealTime.IsZero() {
		return st, nil
	}
	tail := st.Segments[len(st.Segments)-1]
	f, err := open(tail)
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	defer f.Close()
	all := io.NewSectionReader(f, 0, hugeFrame)
	s := &segment{}
	if err := (&segScanner{in: bufio.NewReader(all), info: tail, out: s}).run(); err != nil {
		return st, err
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, s.end, hugeFrame))
	if err != nil {
		return st, err
	}
	if _, err := f.WriteAt(make([]byte, len(rest)), s.end); err != nil {
		return st, err
	}
	if err := f.Sync(); err != nil {
		return st, err
	}
	if s.indexStart != 0 {
		st = rotated(st, s, now)
	}
	return st, nil
}
