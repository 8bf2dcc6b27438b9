package raft

import (
	"errors"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

type fullStore struct {
	*hraft.InmemStore
	full bool
}

func (s *fullStore) StoreLogs(logs []*hraft.Log) error {
	if s.full {
		return errors.New("full")
	}
	return s.InmemStore.StoreLogs(logs)
}

func TestFailedReplacementOfEntriesIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		low, high uint64 // deleted
		full      bool
		want      bool
	}{
		"replaced":              {3, 3, false, false},
		"not replaced":          {3, 3, true, true},
		"compacted, not stored": {1, 2, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := &fullStore{InmemStore: hraft.NewInmemStore()}
			l := &diskLog{LogStore: store}
			if err := l.StoreLogs([]*hraft.Log{{Index: 1}, {Index: 2}, {Index: 3}}); err != nil {
				t.Fatal(err)
			}
			if err := l.DeleteRange(c.low, c.high); err != nil {
				t.Fatal(err)
			}
			store.full = c.full
			if err := l.StoreLog(&hraft.Log{Index: 3}); (err != nil) != c.full {
				t.Fatal(err)
			}
			if got := l.torn.Load(); got != c.want {
				t.Errorf("torn %v", got)
			}
		})
	}
}

// A full disk when raft-wal needs its next file: it tells so once, in its own log, and refuses every
// append from then on.
func TestLogWithoutItsNextFileIsNoticed(t *testing.T) {
	l := &diskLog{LogStore: &fullStore{InmemStore: hraft.NewInmemStore()}}
	if err := l.StoreLog(&hraft.Log{Index: 1}); err != nil || l.sealed.Load() {
		t.Fatal(err, l.sealed.Load())
	}
	l.LogStore = sealedStore{hraft.NewInmemStore()}
	if err := l.StoreLog(&hraft.Log{Index: 2}); !errors.Is(err, ErrDisk) || !l.sealed.Load() {
		t.Errorf("%v, sealed %v", err, l.sealed.Load())
	}
}

type sealedStore struct{ *hraft.InmemStore }

func (sealedStore) StoreLogs([]*hraft.Log) error { return types.ErrSealed }

func TestLostEndIsNotJudgedInHaste(t *testing.T) {
	start := time.Now()
	type look struct {
		after            time.Duration
		believed, stored uint64
		busy             bool
	}
	for name, c := range map[string]struct {
		looks []look
		want  bool // at the last one
	}{
		"whole log":                 {[]look{{0, 9, 9, false}, {2 * time.Second, 9, 9, false}}, false},
		"stored, not yet known":     {[]look{{0, 9, 12, false}, {2 * time.Second, 9, 12, false}}, false},
		"just seen":                 {[]look{{0, 9, 5, false}, {lostEndLimit / 2, 9, 5, false}}, false},
		"replaced in between":       {[]look{{0, 9, 5, false}, {lostEndLimit / 2, 9, 9, false}, {lostEndLimit, 9, 5, false}}, false},
		"slow write in their place": {[]look{{0, 9, 5, true}, {3 * time.Second, 9, 5, true}}, false},
		"lost":                      {[]look{{0, 9, 5, false}, {lostEndLimit, 9, 5, false}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var l lostEnd
			var err error
			for _, k := range c.looks {
				err = l.check(start.Add(k.after), k.believed, k.stored, k.busy)
			}
			if errors.Is(err, ErrLostEnd) != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}
