package raft

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"appliance/raft/durable"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// What raft keeps in the stable store: its term and its vote.
var stableKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// metaContent is what the metadata database of the log holds.
type metaContent struct {
	State  types.PersistentState `json:"state"`
	Stable map[string][]byte     `json:"stable"`
}

// metaCopy is the second copy of the database, in a file of its own. Neither a vote nor the list
// of segments hangs on one page of one file: a database that was damaged, lost or taken back to an older
// transaction (one bit of bbolt's newest meta page does that) is made again from the copy.
type metaCopy struct {
	// Tx and Sum are those of the database file when the copy was written. A database of a later
	// transaction is newer: a crash came in between, or an older version of this program ran.
	Tx  uint64 `json:"tx"`
	Sum string `json:"sum"`
	metaContent
}

const (
	metaCopyFile = "log"
	// metaSlot bounds the copy: a segment of 64 MiB takes 300 bytes.
	metaSlot = 256 << 10
	// rewriting as Tx says that the copy counts whatever the database holds.
	rewriting = math.MaxUint64
	// maxMeta bounds the database: it holds a few segments and a vote.
	maxMeta = 64 << 20
)

func readMetaCopy(witness string) (*metaCopy, error) {
	body, err := durable.ReadSlots(filepath.Join(witness, metaCopyFile), metaSlot)
	if err != nil {
		return nil, err
	}
	c := &metaCopy{}
	return c, json.Unmarshal(body, c)
}

func (c *metaCopy) write(file *durable.Slots) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return file.Write(body, true)
}

// note takes over the present state of the database file, and writes the copy.
func (c *metaCopy) note(db string, file *durable.Slots) error {
	tx, sum, err := boltState(db)
	if err != nil {
		return err
	}
	c.Tx, c.Sum = tx, sum
	return c.write(file)
}

// boltState returns the newest transaction of a bbolt file, 0 if no meta page is intact, and the checksum
// of the file. It reads the file without bbolt, which trusts what it maps.
func boltState(path string) (tx uint64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return 0, "", err
	}
	for _, page := range []int{0, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16} {
		if t, pages, size := boltMeta(raw, page); t > tx && pages*size <= uint64(len(raw)) {
			tx = t
		}
	}
	return tx, durable.Sum(raw), nil
}

// boltMeta reads the meta page at an offset: a page header of 16 bytes, then magic, version, page size
// and flags (4 bytes each), root (16), free list, number of pages, transaction, checksum (8 each).
func boltMeta(raw []byte, at int) (tx, pages, size uint64) {
	const header, sumAt = 16, 56
	if len(raw) < at+header+sumAt+8 {
		return 0, 0, 0
	}
	m := raw[at+header:]
	h := fnv.New64a()
	h.Write(m[:sumAt])
	if binary.NativeEndian.Uint32(m) != 0xED0CDAED || h.Sum64() != binary.NativeEndian.Uint64(m[sumAt:]) {
		return 0, 0, 0
	}
	return binary.NativeEndian.Uint64(m[48:]), binary.NativeEndian.Uint64(m[40:]), uint64(binary.NativeEndian.Uint32(m[8:]))
}

// readBolt reads the database by bbolt. A damaged file makes bbolt panic or read beyond its mapping.
func readBolt(dir string) (c metaContent, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	if _, err := os.Stat(filepath.Join(dir, metadb.FileName)); err != nil {
		return c, err
	}
	db := &metadb.BoltMetaDB{}
	if c.State, err = db.Load(dir); err != nil {
		return c, err
	}
	defer db.Close()
	c.Stable = map[string][]byte{}
	for _, k := range stableKeys {
		v, err := db.GetStable([]byte(k))
		if err != nil {
			return c, err
		}
		if v != nil {
			c.Stable[k] = v
		}
	}
	return c, nil
}

// rebuildMeta makes the database anew. The copy is written first, so that a crash leaves one of the two
// to go on from.
func rebuildMeta(dir string, file *durable.Slots, c metaContent) error {
	kept := &metaCopy{Tx: rewriting, metaContent: c}
	if err := kept.write(file); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "meta.*.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	db := &metadb.BoltMetaDB{}
	if _, err := db.Load(tmp); err != nil {
		return err
	}
	err = db.CommitState(c.State)
	for k, v := range c.Stable {
		err = errors.Join(err, db.SetStable([]byte(k), v))
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	path := filepath.Join(dir, metadb.FileName)
	if err := os.Rename(filepath.Join(tmp, metadb.FileName), path); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	return kept.note(path, file)
}

// settleMeta finds out what the database should hold. found tells whether there ever was one; again
// whether the file has to be made anew; newer whether it was written to without the copy.
func settleMeta(dir, witness string) (c metaContent, found, again, newer bool, err error) {
	path := filepath.Join(dir, metadb.FileName)
	kept, copyErr := readMetaCopy(witness)
	tx, sum, dbErr := boltState(path)
	switch {
	case copyErr == nil && dbErr == nil && sum == kept.Sum:
		return kept.metaContent, true, false, false, nil
	case copyErr == nil && (dbErr != nil || tx <= kept.Tx):
		return kept.metaContent, true, true, false, nil
	case errors.Is(dbErr, fs.ErrNotExist) && errors.Is(copyErr, fs.ErrNotExist):
		return c, false, false, false, nil
	case dbErr != nil:
		return c, true, false, false, dbErr
	case tx == 0:
		return c, true, false, false, errors.New("no page of it is intact")
	}
	c, err = readBolt(dir)
	return c, true, true, true, err
}

// keptMeta is the database with its copy. Safe for concurrent use, as wal.WAL needs it.
type keptMeta struct {
	metadb.BoltMetaDB
	dir  string
	file *durable.Slots

	mu   sync.Mutex
	copy metaCopy
}

// Load implements types.MetaStore.
func (k *keptMeta) Load(dir string) (types.PersistentState, error) {
	state, err := k.BoltMetaDB.Load(dir)
	k.copy.State = state
	return state, err
}

// CommitState implements types.MetaStore.
func (k *keptMeta) CommitState(s types.PersistentState) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.BoltMetaDB.CommitState(s); err != nil {
		return err
	}
	k.copy.State = s
	return k.note()
}

// SetStable implements types.MetaStore. A vote is given when it is in both places.
func (k *keptMeta) SetStable(key, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.BoltMetaDB.SetStable(key, value); err != nil {
		return err
	}
	k.copy.Stable[string(key)] = append([]byte(nil), value...)
	return k.note()
}

func (k *keptMeta) note() error { return k.copy.note(filepath.Join(k.dir, metadb.FileName), k.file) }
