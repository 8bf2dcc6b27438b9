package raft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// tally is a state machine that counts how often each payload was applied, in batches.
type tally struct {
	Seen  []string
	index uint64
}

func (s *tally) Apply(_, _ uint64, data []byte) any {
	s.Seen = append(s.Seen, string(data))
	return fmt.Sprint(len(s.Seen))
}

func (s *tally) Batch(index uint64, apply func()) { apply(); s.index = index }

func (s *tally) Snapshot() (io.WriterTo, error) {
	b, err := json.Marshal(s.Seen)
	return bytes.NewReader(b), err
}

func (s *tally) Restore(r io.Reader) error { return json.NewDecoder(r).Decode(&s.Seen) }

// Whatever the order of first attempts, late retries, batches, repeated delivery and snapshots: each
// proposal takes effect once, all replicas agree, and a retry reports the outcome of what took effect.
func TestReplicaAppliesEachProposalOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 6).Draw(t, "dedup size")
		fresh := func() (*Replica, *tally) {
			sm := &tally{}
			r := NewReplica(sm)
			r.dedup = newDedup(size)
			return r, sm
		}
		var log []Entry
		index := uint64(0)
		floors := map[int]uint64{}
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			index += uint64(rapid.IntRange(1, 3).Draw(t, "hole"))
			p := rapid.IntRange(0, 12).Draw(t, "proposal")
			flags := byte(flagRetry)
			if _, tried := floors[p]; !tried {
				flags, floors[p] = 0, index-1
			}
			id := ProposalID{byte(p)}
			log = append(log, Entry{index, 1, newEnvelope(id, floors[p], flags, fmt.Append(nil, p))})
		}
		a, asm := fresh()
		outcome := map[string]Outcome{}
		for _, e := range log {
			o := a.Apply([]Entry{e})[0]
			if errors.Is(o.Err, ErrUnknownOutcome) {
				continue
			}
			key := string(envelope(e.Data).payload())
			if first, ok := outcome[key]; ok && first != o {
				t.Fatalf("retry of %s reports %+v, the first %+v", key, o, first)
			}
			outcome[key] = o
		}
		seen := slices.Clone(asm.Seen)
		slices.Sort(seen)
		if len(slices.Compact(seen)) != len(asm.Seen) {
			t.Fatalf("applied twice: %v", asm.Seen)
		}
		// Another replica: batches, overlaps, and a snapshot in the middle.
		b, bsm := fresh()
		for i := 0; i < len(log); {
			n := rapid.IntRange(1, 10).Draw(t, "batch")
			from := max(0, i-rapid.IntRange(0, 3).Draw(t, "overlap"))
			i = min(len(log), i+n)
			b.Apply(log[from:i])
			if bsm.index != b.Applied() {
				t.Fatalf("batch committed as of %d, applied %d", bsm.index, b.Applied())
			}
			if rapid.IntRange(0, 4).Draw(t, "snapshot") == 0 {
				var buf bytes.Buffer
				s, err := b.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.WriteTo(&buf); err != nil {
					t.Fatal(err)
				}
				b, bsm = fresh()
				if err := b.restoreSize(&buf, size); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !slices.Equal(asm.Seen, bsm.Seen) || a.Applied() != b.Applied() || a.dedup.evicted != b.dedup.evicted {
			t.Fatalf("replicas differ: %v, %v", asm.Seen, bsm.Seen)
		}
	})
}

// restoreSize restores into a dedup table of a test's size.
func (r *Replica) restoreSize(in io.Reader, size int) error {
	if err := r.Restore(in); err != nil {
		return err
	}
	full := r.dedup
	r.dedup = newDedup(size)
	r.dedup.evicted = full.evicted
	for _, m := range full.list() {
		r.dedup.add(m)
	}
	return nil
}

func TestLateRetryIsRefused(t *testing.T) {
	sm := &tally{}
	r := NewReplica(sm)
	r.dedup = newDedup(2)
	first := newEnvelope(ProposalID{1}, 0, 0, []byte("x"))
	r.Apply([]Entry{{1, 1, first}})
	for i := range 3 {
		r.Apply([]Entry{{uint64(2 + i), 1, newEnvelope(ProposalID{byte(9 + i)}, 0, 0, nil)}})
	}
	o := r.Apply([]Entry{{9, 1, first.asRetry()}})[0]
	if !errors.Is(o.Err, ErrUnknownOutcome) || len(sm.Seen) != 4 {
		t.Errorf("%+v, applied %v", o, sm.Seen)
	}
}

func TestRestoreOfDamagedSnapshotChangesNothing(t *testing.T) {
	r := NewReplica(&tally{})
	r.Apply([]Entry{{3, 2, newEnvelope(ProposalID{1}, 0, 0, []byte("x"))}})
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	s.WriteTo(&buf)
	sm := &tally{Seen: []string{"old"}}
	other := NewReplica(sm)
	for cut := range buf.Len() {
		if err := other.Restore(bytes.NewReader(buf.Bytes()[:cut])); err == nil {
			t.Fatalf("accepted %d of %d bytes", cut, buf.Len())
		}
		if other.Applied() != 0 || sm.Seen[0] != "old" {
			t.Fatal("a failed restore changed the replica")
		}
	}
	if err := other.Restore(&buf); err != nil || other.Applied() != 3 {
		t.Errorf("%v, at %d", err, other.Applied())
	}
	if o, ok := other.Lookup(ProposalID{1}); !ok || o.Value != "1" || o.Index != 3 {
		t.Errorf("outcome after restore: %+v, %v", o, ok)
	}
}

func TestPlainResults(t *testing.T) {
	for _, v := range []any{nil, "text", []byte("bytes"), errors.New("refused"), json.RawMessage(`{"a":1}`)} {
		b, err := plainCodec{}.EncodeResult(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := plainCodec{}.DecodeResult(b)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(v) {
			t.Errorf("%v came back as %v, %v", v, got, err)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(newEnvelope(ProposalID{1}, 7, flagRetry, []byte("x"))))
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEnvelope(b)
		if err != nil {
			return
		}
		flags := e[1]
		if again := newEnvelope(e.id(), e.floor(), flags, e.payload()); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
		if r := e.asRetry(); !r.retry() || r.id() != e.id() || e[1] != flags {
			t.Error("asRetry changed more than the flag, or the original")
		}
	})
}

func FuzzMessages(f *testing.F) {
	env := newEnvelope(ProposalID{1}, 7, 0, []byte("x"))
	f.Add(appendRequest(appendRequest(nil, env), env), 2)
	f.Add(appendReply(appendReply(nil, reply{replyDone, 5, []byte("r")}), reply{status: replyRetry}), 2)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if envs, err := parseRequest(b); err == nil {
			var again []byte
			for _, e := range envs {
				again = appendRequest(again, e)
			}
			if got, err := parseRequest(again); err != nil || len(got) != len(envs) {
				t.Errorf("request does not survive: %v", err)
			}
		}
		if reps, err := parseReplies(b, n&0xff); err == nil && len(reps) != n&0xff {
			t.Errorf("%d replies", len(reps))
		}
	})
}

// wordy answers with more than is to be remembered.
type wordy struct{ tally }

type words string

func (s *wordy) Apply(index, term uint64, data []byte) any {
	s.tally.Apply(index, term, data)
	return words(bytes.Repeat(data, 1000))
}
func (w words) Brief() any {
	if len(w) > 100 {
		return words("gone")
	}
	return nil
}
func (w words) Gone() bool { return w == "gone" }

// The proposer gets the whole answer; only a retry learns no more than that it took effect.
func TestLongAnswersAreNotRemembered(t *testing.T) {
	r := NewReplica(&wordy{})
	env := newEnvelope(ProposalID{1}, 0, 0, []byte("long"))
	first := r.Apply([]Entry{{1, 1, env}})[0]
	if w, _ := first.Value.(words); len(w) != 4000 {
		t.Fatalf("the first answer: %v", first)
	}
	if o := settle(t.Context(), r, ProposalID{1}, first); o.Value != first.Value {
		t.Errorf("the proposer gets %q", o.Value)
	}
	if o := r.Apply([]Entry{{2, 1, env.asRetry()}})[0]; o.Index != 1 || o.Value != words("gone") {
		t.Errorf("a retry gets %+v", o)
	}
}

// Versions before kept answers of any length.
func TestSnapshotWithALongAnswerIsRead(t *testing.T) {
	r := NewReplica(&tally{})
	r.dedup.add(remembered{ProposalID{1}, 1, string(make([]byte, 5<<20))})
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := s.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	if err := NewReplica(&tally{}).Restore(&buf); err != nil {
		t.Error(err)
	}
}
