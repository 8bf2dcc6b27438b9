package raft

import (
	"fmt"
	"log/slog"
	"strings"

	hraft "github.com/hashicorp/raft"
)

// Fingerprint opens the files of a master as Open does and says what they hold: term, vote, end of the
// log, entries after an index. sm receives the newest snapshot and what follows.
func Fingerprint(dir string, sm StateMachine, after uint64) (string, error) {
	d, err := openDisk(Config{Dir: dir}, newHCLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return "", err
	}
	defer d.close()
	var out strings.Builder
	for _, k := range stableKeys {
		v, err := d.stable.Get([]byte(k))
		fmt.Fprintf(&out, "%s %x %v\n", k, v, err)
	}
	replica := NewReplica(sm)
	var index uint64
	if snaps, err := d.snaps.List(); err != nil {
		return "", err
	} else if len(snaps) > 0 {
		_, r, err := d.snaps.Open(snaps[0].ID)
		if err != nil {
			return "", err
		}
		defer r.Close()
		if err := replica.Restore(r); err != nil {
			return "", err
		}
		index = snaps[0].Index
	}
	last, _ := d.log.LastIndex()
	for i := index + 1; i <= last; i++ {
		var l hraft.Log
		if err := d.log.GetLog(i, &l); err != nil {
			return "", err
		}
		fsm{replica}.Apply(&l)
		index = i
	}
	first, _ := d.log.FirstIndex()
	for i := max(first, after); i <= last && i > 0; i++ {
		var l hraft.Log
		if err := d.log.GetLog(i, &l); err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%d %d %v %x\n", l.Index, l.Term, l.Type, l.Data)
	}
	fmt.Fprintf(&out, "last %d\n", index)
	return out.String(), nil
}
