package command

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func audited(c Command) *Audited {
	return Audit(c, model.Actor{Who: "root", From: "unix socket", Node: "n1", Via: "POST /x"}, noon)
}

func records(s *state.Store) (out []model.AuditRecord) {
	for r := range state.Audit.All(s.Snapshot()) {
		out = append(out, *r)
	}
	return out
}

func TestAcceptedChangesAreRecorded(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	env := &PutEnvironment{Environment: model.Environment{Name: "test"}}
	if res := apply(t, m, 1, audited(env)); res.Err != nil {
		t.Fatal(res.Err)
	}
	if state.Environments.Get(store.Snapshot(), "test") == nil {
		t.Fatal("the inner command was not applied")
	}
	for i, c := range []Command{
		&DeleteEnvironment{Name: "none"}, // refused
		&KVTxn{Ops: []KVOp{{Verb: "cas", Key: "a", Index: 7, Value: []byte("x")}, {Verb: "get", Key: "none"}}}, // changes nothing
		audited(env), // nested
	} {
		apply(t, m, uint64(2+i), audited(c))
	}
	apply(t, m, 8, env) // nobody in particular
	apply(t, m, 9, audited(&KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("secret")}}}))
	got := records(store)
	if len(got) != 2 || got[0].What != "PutEnvironment" || got[0].Subject != "test" || got[1].What != "KVTxn" || got[1].Subject != "set a" || got[1].Index != 9 {
		t.Fatalf("got %+v", got)
	}
	if bad := model.VerifyAudit(got, MaxAudit); bad != nil {
		t.Fatal(bad)
	}
}

func TestAuditedUnknownCommandStopsTheNode(t *testing.T) {
	m := NewMachine(state.New())
	raw, err := Encode(audited(&SetLeader{}))
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte(`"kind":20`), []byte(`"kind":9999`), 1)
	v, _ := m.Apply(1, 1, raw).(error)
	var unknown *UnknownError
	if !errors.As(v, &unknown) || unknown.Kind != 9999 {
		t.Fatalf("got %v", v)
	}
}

func TestAuditedCommandMayBeAsLargeAsAnyOther(t *testing.T) {
	c := &KVTxn{Ops: []KVOp{{Verb: "set", Key: strings.Repeat("k", MaxSize-100)}}}
	if _, err := Encode(c); err != nil {
		t.Fatal(err)
	}
	if _, err := Encode(audited(c)); err != nil {
		t.Fatal(err)
	}
}

func TestAuditSurvivesASnapshot(t *testing.T) {
	store := state.New()
	m := NewMachine(store)
	for i := range 5 {
		apply(t, m, uint64(i+1), audited(&PutEnvironment{Environment: model.Environment{Name: fmt.Sprintf("<é>%d", i)}}))
	}
	var b bytes.Buffer
	if err := store.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	other := state.New()
	if err := other.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if bad := model.VerifyAudit(records(other), MaxAudit); bad != nil {
		t.Fatal(bad)
	}
	apply(t, NewMachine(other), 6, audited(&PutEnvironment{Environment: model.Environment{Name: "z"}}))
	if bad := model.VerifyAudit(records(other), MaxAudit); bad != nil {
		t.Fatal(bad)
	}
}

// Whatever is done to a chain, but for its newest end, is found, and nothing
// before the damage is blamed.
func TestChainTellsEveryChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 20).Draw(t, "n")
		var chain []model.AuditRecord
		for i := range n {
			r := model.AuditRecord{Seq: uint64(i + 1), Index: uint64(10 * i), At: noon, What: "X", Subject: rapid.String().Draw(t, "subject")}
			if i > 0 {
				r.Prev = chain[i-1].Hash
			}
			r.Hash = r.Sum()
			chain = append(chain, r)
		}
		if bad := model.VerifyAudit(chain, 1000); bad != nil {
			t.Fatal(bad)
		}
		at := rapid.IntRange(0, n-2).Draw(t, "at")
		switch rapid.SampledFrom([]string{"who", "subject", "time", "hash", "forged", "delete", "swap", "insert"}).Draw(t, "damage") {
		case "who":
			chain[at].Actor.Who += "x"
		case "subject":
			chain[at].Subject += "x"
		case "time":
			chain[at].At = chain[at].At.Add(1)
		case "hash":
			chain[at].Hash = append([]byte{chain[at].Hash[0] ^ 1}, chain[at].Hash[1:]...)
		case "forged": // with a hash that fits
			chain[at].Actor.Who += "x"
			chain[at].Hash = chain[at].Sum()
			at++ // the next record betrays it
		case "delete":
			chain = append(chain[:at], chain[at+1:]...)
		case "swap":
			chain[at], chain[at+1] = chain[at+1], chain[at]
		case "insert":
			chain = append(chain[:at+1], chain[at:]...)
			at++
		}
		bad := model.VerifyAudit(chain, 1000)
		if bad == nil {
			t.Fatal("not found")
		}
		if bad.Position != at {
			t.Fatalf("blamed record %d, not %d: %v", bad.Position, at, bad)
		}
	})
}

func TestAuditIsBounded(t *testing.T) {
	store := state.New()
	tx := store.Begin()
	for i := range uint64(25) {
		chain(tx, i+1, &model.AuditRecord{At: noon, What: "X"}, 10)
	}
	tx.Commit(25)
	got := records(store)
	if len(got) != 10 || got[0].Seq != 16 || got[9].Seq != 25 {
		t.Fatalf("%d records from %d", len(got), got[0].Seq)
	}
	if bad := model.VerifyAudit(got, 10); bad != nil {
		t.Error(bad)
	}
	if bad := model.VerifyAudit(got[1:], 10); bad == nil || bad.Position != 0 {
		t.Errorf("the oldest was cut off: %v", bad)
	}
}

// BenchmarkPut is one key on the way from bytes to state, of the node's own
// and on somebody's behalf.
func BenchmarkPut(b *testing.B) {
	put := &KVTxn{Ops: []KVOp{{Verb: "set", Key: "a", Value: []byte("value")}}}
	for name, c := range map[string]Command{"plain": put, "audited": audited(put)} {
		b.Run(name, func(b *testing.B) {
			m := NewMachine(state.New())
			raw, err := Encode(c)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			index := uint64(0)
			for b.Loop() {
				index++
				m.Apply(index, 1, raw)
			}
		})
	}
}

// FuzzApply looks for entries that panic, or that come back as others.
func FuzzApply(f *testing.F) {
	for _, c := range []Command{audited(&DeleteApp{App: "/test/web"}), audited(audited(&DeleteApp{})), &Audited{}, &KVTxn{Ops: []KVOp{{Verb: "set"}}},
		&StageRestore{ID: "x", Data: []byte("y")}, &EndRestore{ID: "x", Commit: true}} {
		raw, err := Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := NewMachine(state.New())
		c, err := Decode(raw)
		if err != nil {
			return
		}
		m.Apply(1, 1, raw)
		again, err := Encode(c)
		if err != nil {
			return // too large
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("%T: %v", c, err)
		}
	})
}
