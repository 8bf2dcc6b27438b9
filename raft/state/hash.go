package state

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// hashForm is the version of what Hash covers: it changes when the JSON form
// of some row does. Hashes of different forms say nothing about each other.
const hashForm = 1

// Hash is what a state adds up to. Two replicas that have applied the same log
// up to the same index have the same one.
type Hash struct {
	Form   int               `json:"form"`
	Level  int               `json:"level"` // protocol level of the cluster
	Index  uint64            `json:"index"` // log index of the state
	Sum    string            `json:"sum"`   // SHA-256, in hex
	Tables map[string]string `json:"tables"`
}

// Comparable reports whether a difference of the two means something.
func (h Hash) Comparable(o Hash) bool {
	return h.Form == o.Form && h.Level == o.Level && h.Index == o.Index
}

// Differences are the names of the tables that differ, sorted.
func (h Hash) Differences(o Hash) []string {
	var out []string
	for name, sum := range h.Tables {
		if o.Tables[name] != sum {
			out = append(out, name)
		}
	}
	for name := range o.Tables {
		if h.Tables[name] == "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Hash reads the whole view, streaming. It takes about a second for 100,000
// tasks, and ends early with the error of ctx.
func (s *Snapshot) Hash(ctx context.Context) (Hash, error) {
	out := Hash{Form: hashForm, Level: s.FormatLevel(), Index: s.Index(), Tables: map[string]string{}}
	all := sha256.New()
	for _, name := range slices.Sorted(slices.Values(tableNames())) {
		at := s.TableIndex(name)
		if at == 0 {
			continue // never used: another version need not have the table
		}
		sum := sha256.New()
		buf := bufio.NewWriterSize(sum, 64<<10)
		fmt.Fprintf(buf, "%s %d\n", name, at)
		if err := s.writeTable(ctx, buf, name); err != nil {
			return out, fmt.Errorf("hash table %s: %w", name, err)
		}
		if err := buf.Flush(); err != nil {
			return out, err
		}
		out.Tables[name] = hex.EncodeToString(sum.Sum(nil))
		fmt.Fprintf(all, "%s %s\n", name, out.Tables[name])
	}
	out.Sum = hex.EncodeToString(all.Sum(nil))
	return out, nil
}

// View is the state in the middle of the transaction, as of index: what a
// reader will have seen between this entry and the next.
func (t *Tx) View(index uint64) *Snapshot {
	t.settle(index)
	return &Snapshot{txn: t.txn.Snapshot(), abandoned: t.abandoned}
}
