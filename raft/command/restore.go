package command

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/state"
)

const (
	// ChunkSize is one piece of a snapshot file on its way into the state: in
	// base64 it fits into an entry.
	ChunkSize = 512 << 10
	// MaxRestore bounds the file. The state of a million tasks packs into some
	// 60 MiB.
	MaxRestore = 64 << 20
	maxChunks  = MaxRestore / ChunkSize
)

// StageRestore brings one piece of a snapshot file into the log. The first one
// drops what an earlier attempt has left. Nothing else changes until
// EndRestore.
type StageRestore struct {
	ID   string `json:"id"`
	N    int    `json:"n"` // from 0
	Data []byte `json:"data"`
}

func (c *StageRestore) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if c.ID == "" || c.N < 0 || c.N >= maxChunks || len(c.Data) > ChunkSize {
		return nil, model.Errorf(model.CodeInvalid, "this is no piece of a snapshot").Because("a snapshot has up to %d pieces of %d bytes", maxChunks, ChunkSize)
	}
	if c.N == 0 {
		clearStaged(tx, index)
	} else if state.Staged.Get(&tx.Snapshot, (&model.StagedChunk{ID: c.ID, N: c.N - 1}).Key()) == nil {
		return nil, model.Errorf(model.CodeConflict, "another restore has begun meanwhile").Try("start again when it has ended")
	}
	state.Staged.Put(tx, index, &model.StagedChunk{ID: c.ID, N: c.N, Data: c.Data})
	return nil, nil
}

func clearStaged(tx *state.Tx, index uint64) {
	for _, row := range collect(state.Staged.All(&tx.Snapshot)) {
		state.Staged.Delete(tx, index, row.Key())
	}
}

// EndRestore replaces the state by the staged file, or drops it if Commit is
// false. Every node checks the file again and replaces at the same entry of
// the log, so that no election, crash or restart can leave two states.
//
// What is about the machines as they are now stays: nodes, join tokens, leases
// and where volumes live, whose epochs must never go back, and the history
// with the audit log. Tasks that live stay if the file knows them; all others
// go: agents stop those, and the scheduler replaces those that are missing.
type EndRestore struct {
	ID     string    `json:"id"`
	Commit bool      `json:"commit"`
	At     time.Time `json:"at"`
	// Foreign takes the file of another cluster into this one, which is empty;
	// see adopt.
	Foreign bool `json:"foreign,omitempty" level:"2"`
}

// Restored is the result of EndRestore.
type Restored struct {
	Header archive.Header `json:"header"` // of the file
	// Of another cluster's file: what cannot be as it was.
	SealedWith []string `json:"sealedWith,omitempty"` // keys of secrets that this cluster does not have
	Volumes    []string `json:"volumes,omitempty"`    // whose data was on the other cluster's machines
}

// kept are the tables that a restore leaves as they are.
var kept = []string{state.Nodes.Name, state.JoinTokens.Name, state.Leases.Name, state.Volumes.Name, state.Tasks.Name, state.Clusters.Name,
	state.Events.Name, state.Audit.Name, state.Staged.Name}

func (c *EndRestore) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	var file []byte
	for chunk := range state.Staged.Prefix(&tx.Snapshot, c.ID+"/") {
		file = append(file, chunk.Data...)
	}
	if !c.Commit {
		if len(file) > 0 {
			clearStaged(tx, index)
		}
		return nil, nil
	}
	head, then, err := LoadArchive(&tx.Snapshot, bytes.NewReader(file), int64(len(file)), c.Foreign)
	if err != nil {
		return nil, err
	}
	snap := then.Snapshot()
	if c.Foreign {
		out := adopt(tx, index, snap, c.At)
		clearStaged(tx, index)
		record(tx, index, c.At, "cluster", head.Name, fmt.Sprintf("the empty state was filled from the snapshot of another cluster (%s, %s)", head.Cluster, head.Time.UTC().Format(time.RFC3339)), nil)
		out.Header = head
		return out, nil
	}
	tx.Replace(index, snap, kept...)
	restoreCluster(tx, index, snap)
	restoreTasks(tx, index, snap)
	for v := range state.Volumes.All(snap) {
		if state.Volumes.Get(&tx.Snapshot, v.Name) == nil {
			back := *v
			state.Volumes.Put(tx, index, &back)
		}
	}
	clearStaged(tx, index)
	record(tx, index, c.At, "cluster", head.Name, fmt.Sprintf("state was replaced by the snapshot of %s", head.Time.UTC().Format(time.RFC3339)), nil)
	return Restored{Header: head}, nil
}

// LoadArchive reads a snapshot file that may replace the state that s is of. A
// foreign one is of another cluster.
func LoadArchive(s *state.Snapshot, file io.ReaderAt, size int64, foreign bool) (archive.Header, *state.Store, *model.Error) {
	head, store, err := archive.Load(file, size)
	if err != nil {
		why, ok := err.(*model.Error)
		if !ok {
			why = model.Errorf(model.CodeInvalid, "the snapshot cannot be used").Because("%v", err)
		}
		return head, nil, why
	}
	if have, want := ClusterLevel(s), store.Snapshot().FormatLevel(); want > have {
		return head, nil, model.Errorf(model.CodeConflict, "the snapshot is of a newer protocol level than the cluster").
			Because("it has level %d, the cluster %d", want, have).Try("upgrade all nodes first (appliance upgrade); nothing was changed")
	}
	switch own := state.Clusters.Get(s, head.Cluster) != nil; {
	case own && foreign:
		return head, nil, model.Errorf(model.CodeInvalid, "the snapshot is of this cluster").Try("restore it with --accept-risk=%s; nothing was changed", RiskReplaceState)
	case !own && !foreign:
		return head, nil, model.Errorf(model.CodeConflict, "the snapshot is of another cluster").Because("it is of %s (%s)", head.Name, head.Cluster).
			Try("restore it where it was made; if all masters of that cluster are lost, into a new one with --accept-risk=%s; nothing was changed", RiskOtherCluster)
	case foreign:
		return head, store, empty(s)
	}
	return head, store, nil
}

// restoreCluster takes the cluster's settings back, but not who leads and votes,
// which CA and keys it has, and what is known of its nodes' states.
func restoreCluster(tx *state.Tx, index uint64, from *state.Snapshot) {
	for _, now := range collect(state.Clusters.All(&tx.Snapshot)) {
		then := state.Clusters.Get(from, now.ID)
		if then == nil {
			continue
		}
		next := *then
		next.CACert, next.Trust, next.Leader, next.VIPHolder, next.Level = now.CACert, now.Trust, now.Leader, now.VIPHolder, now.Level
		next.Voters, next.Diverged = now.Voters, now.Diverged
		next.Generation, next.GenerationProof = now.Generation, now.GenerationProof
		state.Clusters.Put(tx, index, &next)
	}
}

func restoreTasks(tx *state.Tx, index uint64, from *state.Snapshot) {
	for _, t := range collect(state.Tasks.All(&tx.Snapshot)) {
		if then := state.Tasks.Get(from, t.ID); then == nil || !then.Live() || !t.Live() {
			state.Tasks.Delete(tx, index, t.ID)
		}
	}
}
