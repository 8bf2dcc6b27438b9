package raft

import (
	"errors"
	"testing"

	hraft "github.com/hashicorp/raft"
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
