package sim

import (
	"bytes"
	"crypto/sha256"
	"io"
	"sync"

	"appliance/raft/command"
	"appliance/raft/state"
)

// journal is the log as the machines applied it, whoever applied an entry first. It fails when another
// one applies something else at an index, gets another result or another state, or when a change that
// was proposed once takes effect twice. Safe for concurrent use.
type journal struct {
	fail func(format string, args ...any)

	mu      sync.Mutex
	entries map[uint64]digest // of payload and result
	states  map[uint64]digest // of the whole state, at some indexes
	unique  map[digest]uint64 // index of the changes that are proposed once
	checked int               // comparisons of states
}

type digest [sha256.Size]byte

// stateEvery is how many indexes lie between comparisons of whole states.
const stateEvery = 128

func newJournal(fail func(string, ...any)) *journal {
	return &journal{fail: fail, entries: map[uint64]digest{}, states: map[uint64]digest{}, unique: map[digest]uint64{}}
}

func (j *journal) applied(at string, index uint64, payload []byte, result any) {
	res, _ := result.(command.Result)
	hash := sha256.New()
	hash.Write(payload)
	id := digest(hash.Sum(nil))
	raw, err := (*command.Machine)(nil).EncodeResult(res)
	if err != nil {
		j.fail("%s: result at index %d: %v", at, index, err)
	}
	hash.Write(raw)
	if res.Err != nil {
		hash.Write([]byte(res.Err.Error()))
	}
	sum := digest(hash.Sum(nil))
	j.mu.Lock()
	defer j.mu.Unlock()
	old, known := j.entries[index]
	switch {
	case known && old != sum:
		j.fail("%s applies another entry, or with another result, at index %d", at, index)
	case !known && proposedOnce(payload):
		if first := j.unique[id]; first != 0 {
			j.fail("%s applies a change twice, at index %d and %d", at, first, index)
		}
		j.unique[id] = index
	}
	j.entries[index] = sum
}

// proposedOnce tells changes that no part of the system proposes again with the same bytes.
func proposedOnce(payload []byte) bool {
	c, err := command.Decode(payload)
	if err != nil {
		return false
	}
	switch c := c.(type) {
	case *command.KVTxn:
		return c.Ops[0].Verb != "delete" // written values are never the same
	case *command.CreateRelease, *command.ScaleApp, *command.LaunchTasks, *command.RecordEvent:
		return true
	}
	return false
}

// comparisons is how often two machines had a state at one index.
func (j *journal) comparisons() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checked
}

func (j *journal) state(at string, snap *state.Snapshot) {
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		j.fail("%s: %v", at, err)
		return
	}
	sum := digest(sha256.Sum256(b.Bytes()))
	j.mu.Lock()
	defer j.mu.Unlock()
	old, known := j.states[snap.Index()]
	if known && old != sum {
		j.fail("%s has another state at index %d", at, snap.Index())
	}
	if known {
		j.checked++
	}
	j.states[snap.Index()] = sum
}

// recorded is a machine's state machine that writes the journal.
type recorded struct {
	*command.Machine
	store   *state.Store
	journal *journal
	at      string
}

// Apply implements raft.StateMachine.
func (r recorded) Apply(index, term uint64, data []byte) any {
	v := r.Machine.Apply(index, term, data)
	r.journal.applied(r.at, index, data, v)
	return v
}

// Batch implements raft.Batcher.
func (r recorded) Batch(index uint64, apply func()) {
	r.Machine.Batch(index, apply)
	if snap := r.store.Snapshot(); snap.Index()%stateEvery == 0 {
		r.journal.state(r.at, snap)
	}
}

// Restore implements raft.StateMachine.
func (r recorded) Restore(in io.Reader) error {
	before := r.store.Snapshot().Index()
	err := r.Machine.Restore(in)
	if err == nil {
		if now := r.store.Snapshot().Index(); now < before && r.at[0] == 'm' { // a master takes back nothing that it has acknowledged
			r.journal.fail("%s goes back from index %d to %d", r.at, before, now)
		}
		r.journal.state(r.at, r.store.Snapshot())
	}
	return err
}
