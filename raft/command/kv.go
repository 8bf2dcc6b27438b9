package command

import (
	"bytes"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// KVOp is one operation of a KVTxn, with the verbs of Consul's transactions:
// set, cas, lock, unlock, get, get-or-empty, get-tree, check-index,
// check-session, check-not-exists, delete, delete-tree, delete-cas.
type KVOp struct {
	Verb    string `json:"verb"`
	Key     string `json:"key"`
	Value   []byte `json:"value,omitempty"`
	Flags   uint64 `json:"flags,omitempty"`
	Index   uint64 `json:"index,omitempty"`
	Session string `json:"session,omitempty"`
}

// KVTxn applies all operations or none. A single PUT or DELETE of the HTTP
// API is a transaction of one operation.
type KVTxn struct {
	Ops []KVOp `json:"ops"`
	// At is when it was proposed; locks of ended sessions are held back until
	// their delay is over. The zero time does not look.
	At time.Time `json:"at,omitzero"`
}

// ReadOnly reports whether the transaction only reads, so that Read will do.
func (c *KVTxn) ReadOnly() bool {
	for _, op := range c.Ops {
		switch op.Verb {
		case "get", "get-or-empty", "get-tree", "check-index", "check-session", "check-not-exists":
		default:
			return false
		}
	}
	return true
}

// Read evaluates the operations of a read-only transaction on a view.
func (c *KVTxn) Read(s *state.Snapshot) KVTxnResult {
	w := kvWrites{snap: s, pending: map[string]*model.KV{}, at: c.At}
	var res KVTxnResult
	w.all(c.Ops, &res)
	return res
}

// KVTxnResult is the result of KVTxn. With errors nothing was written.
type KVTxnResult struct {
	Results []model.KV   `json:"results,omitempty"`
	Errors  []KVTxnError `json:"errors,omitempty"`
}

// KVTxnError says which operation failed and why, in Consul's words.
type KVTxnError struct {
	OpIndex int    `json:"OpIndex"`
	What    string `json:"What"`
}

func (c *KVTxn) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	w := kvWrites{snap: &tx.Snapshot, pending: map[string]*model.KV{}, at: c.At}
	mem := &struct {
		KVTxnResult
		row [1]model.KV
	}{} // in one piece: tens of thousands of results are remembered
	res := &mem.KVTxnResult
	res.Results = mem.row[:0]
	w.all(c.Ops, res)
	if len(res.Errors) > 0 {
		return res, nil
	}
	w.flush(tx, index)
	for i := range res.Results {
		if row := w.pending[res.Results[i].Key]; row != nil {
			res.Results[i].Meta = row.Meta
		}
	}
	return res, nil
}

// kvWrites collects the writes of a transaction, so that nothing is written
// before all checks have passed, while later operations see earlier ones.
type kvWrites struct {
	snap    *state.Snapshot
	pending map[string]*model.KV // nil value: deleted
	order   []string
	at      time.Time

	// The key that was looked up last and what was there: most transactions have one operation.
	key   string
	there *model.KV
	known bool
}

// all does the operations and adds to res what they answer.
func (w *kvWrites) all(ops []KVOp, res *KVTxnResult) {
	for i, op := range ops {
		rows, what := w.do(op)
		if what != "" {
			res.Errors = append(res.Errors, KVTxnError{OpIndex: i, What: what})
			continue
		}
		res.Results = append(res.Results, rows...)
	}
	if len(res.Errors) > 0 || len(res.Results) == 0 {
		res.Results = nil
	}
}

func (w *kvWrites) get(key string) *model.KV {
	if row, ok := w.pending[key]; ok {
		return row
	}
	return w.before(key)
}

// before is what was there before the transaction, as long as flush has not come to the key.
func (w *kvWrites) before(key string) *model.KV {
	if !w.known || w.key != key {
		w.key, w.there, w.known = key, state.KVs.Get(w.snap, key), true
	}
	return w.there
}

func (w *kvWrites) set(key string, row *model.KV) {
	if _, ok := w.pending[key]; !ok {
		w.order = append(w.order, key)
	}
	w.pending[key] = row
}

// flush writes what differs: a key that is set to what it is keeps its index
// and wakes nobody. Rows that stay have their indexes after it.
func (w *kvWrites) flush(tx *state.Tx, index uint64) {
	for _, key := range w.order { // each once
		row := w.pending[key]
		switch old := w.before(key); {
		case row == nil:
			state.KVs.Delete(tx, index, key)
		case old != nil && sameKV(old, row):
			row.Meta = old.Meta
		default:
			state.KVs.Replace(tx, index, old, row)
		}
	}
}

func sameKV(a, b *model.KV) bool {
	return bytes.Equal(a.Value, b.Value) && a.Flags == b.Flags && a.Session == b.Session &&
		a.LockIndex == b.LockIndex && a.DelayUntil.Equal(b.DelayUntil)
}

func (w *kvWrites) do(op KVOp) (rows []model.KV, what string) {
	old := w.get(op.Key)
	switch op.Verb {
	case "set":
		return w.put(op, old, func(*model.KV) {}), ""
	case "cas":
		if (op.Index == 0 && old != nil) || (op.Index != 0 && (old == nil || old.ModifyIndex != op.Index)) {
			return nil, "failed to set key \"" + op.Key + "\", index is stale"
		}
		return w.put(op, old, func(*model.KV) {}), ""
	case "lock", "unlock":
		return w.lock(op, old)
	case "get", "get-or-empty", "get-tree":
		return w.read(op, old)
	case "delete":
		w.set(op.Key, nil)
	case "delete-cas":
		if old != nil && old.ModifyIndex != op.Index {
			return nil, "failed to delete key \"" + op.Key + "\", index is stale"
		}
		w.set(op.Key, nil)
	case "delete-tree":
		for _, row := range w.tree(op.Key) {
			w.set(row.Key, nil)
		}
	default:
		return nil, check(op, old)
	}
	return nil, ""
}

func (w *kvWrites) put(op KVOp, old *model.KV, change func(*model.KV)) []model.KV {
	row := &model.KV{Key: op.Key, Value: op.Value, Flags: op.Flags}
	if old != nil {
		row.Session, row.LockIndex, row.DelayUntil = old.Session, old.LockIndex, old.DelayUntil
	}
	change(row)
	w.set(op.Key, row)
	shown := *row
	shown.Value = nil // a write answers without the value
	return []model.KV{shown}
}

func (w *kvWrites) lock(op KVOp, old *model.KV) ([]model.KV, string) {
	held := ""
	if old != nil {
		held = old.Session
	}
	if op.Verb == "lock" {
		if state.Sessions.Get(w.snap, op.Session) == nil {
			return nil, "failed session lookup: invalid session \"" + op.Session + "\""
		}
		if held == "" && old != nil && w.at.Before(old.DelayUntil) && !w.at.IsZero() {
			return nil, "failed to lock key \"" + op.Key + "\" due to lock delay"
		}
		if held != "" && held != op.Session {
			return nil, "failed to lock key \"" + op.Key + "\", lock is already held"
		}
		return w.put(op, old, func(row *model.KV) {
			if held == "" {
				row.LockIndex++
			}
			row.Session, row.DelayUntil = op.Session, time.Time{}
		}), ""
	}
	if held == "" || held != op.Session {
		return nil, "failed to unlock key \"" + op.Key + "\", lock isn't held, or is held by another session"
	}
	return w.put(op, old, func(row *model.KV) { row.Session = "" }), ""
}

func (w *kvWrites) read(op KVOp, old *model.KV) ([]model.KV, string) {
	if op.Verb == "get-tree" {
		return w.tree(op.Key), ""
	}
	if old == nil {
		if op.Verb == "get-or-empty" {
			return []model.KV{{Key: op.Key}}, ""
		}
		return nil, "key \"" + op.Key + "\" doesn't exist"
	}
	return []model.KV{*old}, ""
}

func (w *kvWrites) tree(prefix string) []model.KV {
	var rows []model.KV
	for row := range state.KVs.Prefix(w.snap, prefix) {
		if _, changed := w.pending[row.Key]; !changed {
			rows = append(rows, *row)
		}
	}
	for _, key := range w.order {
		if row := w.pending[key]; row != nil && strings.HasPrefix(key, prefix) {
			rows = append(rows, *row)
		}
	}
	return rows
}

func check(op KVOp, old *model.KV) string {
	switch op.Verb {
	case "check-index":
		if old == nil || old.ModifyIndex != op.Index {
			return "key \"" + op.Key + "\" doesn't exist or has another index"
		}
	case "check-session":
		if old == nil || old.Session != op.Session {
			return "failed session check for key \"" + op.Key + "\""
		}
	case "check-not-exists":
		if old != nil {
			return "key \"" + op.Key + "\" exists"
		}
	default:
		return "unknown KV verb \"" + op.Verb + "\""
	}
	return ""
}

// PutSession creates a session.
type PutSession struct {
	Session model.Session `json:"session"`
}

func (c *PutSession) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	state.Sessions.Put(tx, index, &c.Session)
	return nil, nil
}

// RenewSession moves the end of a session.
type RenewSession struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (c *RenewSession) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Sessions.Get(&tx.Snapshot, c.ID)
	if old == nil {
		return nil, model.Errorf(model.CodeNotFound, "Session id '%s' not found", c.ID)
	}
	s := *old
	s.RenewedAt = c.At
	state.Sessions.Put(tx, index, &s)
	return nil, nil
}

// DestroySession ends a session and frees or deletes the keys that it locks,
// as its behaviour says.
type DestroySession struct {
	ID string `json:"id"`
	// At starts the lock delay of the keys that are freed; the zero time starts
	// none. Keys that are deleted have no delay: nothing is left to carry it.
	At time.Time `json:"at,omitzero"`
	// IfModified leaves the session alone if it changed since, such as by a
	// renewal that the reaper did not see; 0 does not look.
	IfModified uint64 `json:"ifModified,omitempty"`
}

func (c *DestroySession) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	s := state.Sessions.Get(&tx.Snapshot, c.ID)
	if s == nil || (c.IfModified != 0 && s.ModifyIndex != c.IfModified) {
		return nil, nil
	}
	for _, row := range collect(state.KVs.By(&tx.Snapshot, "session", c.ID)) {
		if s.Behavior == "delete" {
			state.KVs.Delete(tx, index, row.Key)
			continue
		}
		free := *row
		free.Session = ""
		if !c.At.IsZero() && s.LockDelay > 0 {
			free.DelayUntil = c.At.Add(s.LockDelay)
		}
		state.KVs.Put(tx, index, &free)
	}
	state.Sessions.Delete(tx, index, c.ID)
	return nil, nil
}
