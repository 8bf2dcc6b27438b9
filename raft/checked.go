package raft

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// checkedLog verifies every entry that it reads against a checksum in memory, from when it was written
// or verified at open, and keeps the tail record. Safe for concurrent use as far as hraft.LogStore is.
type checkedLog struct {
	hraft.LogStore
	dir     string
	tail    *tail
	damaged func(error) // told once

	mu    sync.RWMutex
	first uint64   // index of sums[0]
	sums  []uint32 // without gaps
}

// GetLog implements hraft.LogStore.
func (c *checkedLog) GetLog(index uint64, log *hraft.Log) error {
	if err := c.LogStore.GetLog(index, log); err != nil {
		if want, ok := c.sum(index); ok && want != 0 {
			return c.report(index, fmt.Sprintf("entry %d cannot be read: %v", index, err), err)
		}
		return err
	}
	if want, ok := c.sum(index); ok && (log.Index != index || sumLog(log) != want) {
		return c.report(index, fmt.Sprintf("the checksum of entry %d does not match", index), nil)
	}
	return nil
}

func (c *checkedLog) sum(index uint64) (uint32, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if index < c.first || index-c.first >= uint64(len(c.sums)) {
		return 0, false
	}
	return c.sums[index-c.first], true
}

// report ends the node: the caller, raft's main loop among others, is held up so that it neither votes
// nor panics before the reason is told.
func (c *checkedLog) report(index uint64, what string, err error) error {
	if _, still := c.sum(index); !still {
		return err // it was removed meanwhile
	}
	de := &DamageError{Files: []Damage{{segmentOf(c.dir, index), what}}}
	c.damaged(de)
	time.Sleep(10 * electionTimeout)
	return de
}

// StoreLog implements hraft.LogStore.
func (c *checkedLog) StoreLog(log *hraft.Log) error { return c.StoreLogs([]*hraft.Log{log}) }

// StoreLogs implements hraft.LogStore.
func (c *checkedLog) StoreLogs(logs []*hraft.Log) error {
	if err := c.LogStore.StoreLogs(logs); err != nil || len(logs) == 0 {
		return err
	}
	c.mu.Lock()
	if len(c.sums) == 0 {
		c.first = logs[0].Index
	}
	for _, l := range logs {
		c.sums = append(c.sums, sumLog(l))
	}
	sum := c.sums[len(c.sums)-1]
	c.mu.Unlock()
	last := logs[len(logs)-1].Index
	return c.tail.change(false, func(r *tailRecord) { r.last, r.sum = last, sum })
}

// DeleteRange implements hraft.LogStore. What is no longer promised is noted before it goes.
func (c *checkedLog) DeleteRange(low, high uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sums) == 0 {
		return c.LogStore.DeleteRange(low, high)
	}
	last := c.first + uint64(len(c.sums)) - 1
	keep := c.sums
	switch {
	case low <= c.first && high >= last:
		keep = nil
	case low <= c.first && high >= c.first:
		keep = keep[high-c.first+1:]
	case low > c.first && low <= last && high >= last:
		keep = keep[:low-c.first]
	}
	if high >= last && low <= last {
		err := c.tail.change(true, func(r *tailRecord) {
			r.last, r.sum = 0, 0
			if len(keep) > 0 {
				r.last, r.sum = low-1, keep[len(keep)-1]
			}
		})
		if err != nil {
			return err
		}
	}
	if err := c.LogStore.DeleteRange(low, high); err != nil {
		return err
	}
	if low <= c.first && len(keep) > 0 && len(keep) < len(c.sums) {
		c.first = high + 1
	}
	c.sums = append([]uint32(nil), keep...)
	return nil
}

// IsMonotonic tells raft to keep the log without gaps.
func (c *checkedLog) IsMonotonic() bool { return true }

// segmentOf names the file that holds an entry.
func segmentOf(dir string, index uint64) string {
	names, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	best := dir
	for _, n := range names { // sorted, and the first index is the begin of the name
		var base, id uint64
		if _, err := fmt.Sscanf(filepath.Base(n), "%d-%x.wal", &base, &id); err == nil && base <= index {
			best = n
		}
	}
	return best
}

func segmentPath(dir string, info types.SegmentInfo) string {
	return filepath.Join(dir, walsegment.FileName(info))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
