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

func TestWrongEndIsNotJudgedInHaste(t *testing.T) {
	start := time.Now()
	type look struct {
		after            time.Duration
		believed, stored uint64
		busy             bool
	}
	for name, c := range map[string]struct {
		looks []look
		want  error // at the last one
	}{
		"whole log":                 {[]look{{0, 9, 9, false}, {2 * time.Second, 9, 9, false}}, nil},
		"stored, not yet known":     {[]look{{0, 9, 12, false}, {wrongEndLimit / 2, 9, 12, false}}, nil},
		"slow write":                {[]look{{0, 9, 12, true}, {3 * time.Second, 9, 12, true}}, nil},
		"busy log":                  {[]look{{0, 9, 12, false}, {wrongEndLimit, 12, 15, false}, {2 * wrongEndLimit, 15, 18, false}}, nil},
		"never known":               {[]look{{0, 9, 12, false}, {wrongEndLimit, 9, 12, false}}, ErrUnknownEnd},
		"just seen":                 {[]look{{0, 9, 5, false}, {wrongEndLimit / 2, 9, 5, false}}, nil},
		"replaced in between":       {[]look{{0, 9, 5, false}, {wrongEndLimit / 2, 9, 9, false}, {wrongEndLimit, 9, 5, false}}, nil},
		"slow write in their place": {[]look{{0, 9, 5, true}, {3 * time.Second, 9, 5, true}}, nil},
		"lost":                      {[]look{{0, 9, 5, false}, {wrongEndLimit, 9, 5, false}}, ErrLostEnd},
	} {
		t.Run(name, func(t *testing.T) {
			var l wrongEnd
			var err error
			for _, k := range c.looks {
				err = l.check(start.Add(k.after), k.believed, k.stored, k.busy)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
