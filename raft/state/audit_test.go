package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/model"

	"pgregory.net/rapid"
)

// auditRow is a record whose texts and time depend on its number.
func auditRow(seq, index uint64) *model.AuditRecord {
	zone := []*time.Location{time.UTC, time.FixedZone("", 5400), time.FixedZone("", -3600)}[seq%3]
	r := &model.AuditRecord{Meta: model.Meta{CreateIndex: index, ModifyIndex: index}, Seq: seq, Index: index,
		At: time.Unix(int64(seq)*100000, int64(seq)).In(zone), What: "KVTxn", Subject: strings.Repeat("\u00e4", int(seq%5)),
		Actor: model.Actor{Who: fmt.Sprint("w", seq), Via: "\x00"}}
	if seq > 1 {
		r.Prev = []byte{byte(seq), 0}
	}
	r.Hash = r.Sum()
	return r
}

func jsonOf(t *testing.T, rows []*model.AuditRecord) string {
	t.Helper()
	raw, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The log in blocks is a list that forgets its oldest; views of it never change; and what was aborted was
// never there.
func TestAuditLogIsAList(t *testing.T) {
	for _, keep := range []int{1, 3, 600, 1100} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			s, seq := New(), uint64(1)
			var want []*model.AuditRecord
			var views []*Snapshot
			var texts []string
			for round, n := range []int{1, 2, 508, 1, 0, 1, 600, 511, 3} {
				index := uint64(round + 1)
				for _, abort := range []bool{true, false} {
					tx := s.Begin()
					for i := range uint64(n) {
						row := auditRow(seq+i, index)
						if abort {
							row.What = "never"
						}
						Audit.Append(tx, index, row, keep)
					}
					if last := Audit.Last(&tx.Snapshot); n > 0 && last.Seq != seq+uint64(n)-1 {
						t.Fatalf("a transaction does not see its own record: %d", last.Seq)
					}
					if abort {
						tx.Abort()
						continue
					}
					tx.Commit(index)
				}
				for range n {
					want = append(want, auditRow(seq, index))
					seq++
				}
				want = want[max(0, len(want)-keep):]
				views, texts = append(views, s.Snapshot()), append(texts, jsonOf(t, want))
			}
			for i, v := range views {
				if got := jsonOf(t, slices.Collect(Audit.All(v))); got != texts[i] {
					t.Fatalf("view %d has changed or differs", i)
				}
			}
			checkAudit(t, s.Snapshot(), want)
		})
	}
}

func checkAudit(t *testing.T, view *Snapshot, want []*model.AuditRecord) {
	t.Helper()
	for _, r := range want {
		if got := Audit.Get(view, r.Key()); got == nil || jsonOf(t, []*model.AuditRecord{got}) != jsonOf(t, []*model.AuditRecord{r}) {
			t.Fatalf("record %d is %v", r.Seq, got)
		}
	}
	last := want[len(want)-1].Seq
	for _, key := range []string{model.AuditKey(last + 1), model.AuditKey(last - uint64(len(want))), "x"} {
		if got := Audit.Get(view, key); got != nil {
			t.Fatalf("there is a record %s: %v", key, got)
		}
	}
	if n := view.Counts()["audit"]; n != len(want) || Audit.Count(view) != n {
		t.Fatalf("it counts %d records, not %d", n, len(want))
	}
	var file bytes.Buffer
	if err := view.Write(&file); err != nil {
		t.Fatal(err)
	}
	back := New()
	if err := back.Restore(&file); err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(Audit.All(back.Snapshot())); jsonOf(t, got) != jsonOf(t, want) || Audit.Last(back.Snapshot()).Seq != last {
		t.Fatal("a restored log differs")
	}
}

func TestRestoreRefusesRecordsOutOfOrder(t *testing.T) {
	line := func(seq int) string {
		return fmt.Sprintf(`{"t":"audit","r":{"seq":%d,"at":"2026-01-02T03:04:05Z"}}`+"\n", seq)
	}
	s := New()
	err := s.Restore(bytes.NewBufferString(`{"format":"appliance-state/1","index":3,"rows":2}` + "\n" + line(2) + line(2)))
	if err == nil || Audit.Count(s.Snapshot()) != 0 {
		t.Errorf("%v, %d records", err, Audit.Count(s.Snapshot()))
	}
}

// A transaction reads what it has written, by id and in scans, and nobody else does before the commit.
func TestTransactionSeesItsOwnWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want, index := New(), map[string]string{}, uint64(0)
		key := rapid.SampledFrom([]string{"a", "a/b", "a/bc", "b", ""})
		for range rapid.IntRange(1, 5).Draw(t, "transactions") {
			tx, next := s.Begin(), maps.Clone(want)
			index++
			for range rapid.IntRange(0, 8).Draw(t, "writes") {
				k, v := key.Draw(t, "key"), rapid.StringMatching("[xy]?").Draw(t, "value")
				if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
					_, there := next[k]
					if KVs.Delete(tx, index, k) != there {
						t.Fatalf("delete of %q does not see it", k)
					}
					delete(next, k)
					continue
				}
				KVs.Put(tx, index, &model.KV{Key: k, Value: []byte(v), Session: v})
				next[k] = v
				same(t, &tx.Snapshot, next)
			}
			same(t, s.Snapshot(), want)
			if rapid.Bool().Draw(t, "abort") {
				tx.Abort()
			} else {
				tx.Commit(index)
				want = next
			}
			same(t, s.Snapshot(), want)
		}
	})
}

func same(t *rapid.T, s *Snapshot, want map[string]string) {
	t.Helper()
	got, held := map[string]string{}, 0
	for row := range KVs.All(s) {
		got[row.Key] = string(row.Value)
	}
	for k, v := range want {
		if row := KVs.Get(s, k); row == nil || string(row.Value) != v {
			t.Fatalf("%q is %v, want %q", k, row, v)
		}
		if v == "x" {
			held++
		}
	}
	if n := len(slices.Collect(KVs.By(s, "session", "x"))); !maps.Equal(got, want) || n != held {
		t.Fatalf("a scan gives %v (%d held), want %v (%d held)", got, n, want, held)
	}
	if KVs.Get(s, "never") != nil {
		t.Fatal("a row from nowhere")
	}
}
