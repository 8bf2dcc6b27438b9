package state

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strconv"
	"time"

	"appliance/node/model"

	"github.com/hashicorp/go-memdb"
)

// AuditLog is the table of audit records. Records are only appended and fall off at the other end, one for
// nearly every change of the cluster, so they lie encoded in a few large blocks: an append touches no
// tree, and the garbage collector has nothing to follow. Rows handed out are fresh.
type AuditLog struct{ Name string }

// auditRows is one version of the log, the only row of its memdb table. Versions share blocks: the writer
// appends behind what older versions see.
type auditRows struct {
	full []*auditBlock // of auditPerBlock records each, oldest first; never changed in place
	tail auditBlock    // being filled
	skip int           // records of the oldest block that have fallen off
	last *model.AuditRecord
}

type auditBlock struct {
	data []byte
	ends []uint32 // where each record ends
}

// auditPerBlock bounds what is kept of records that have fallen off: about 100 kB.
const auditPerBlock = 512

func (b *auditBlock) at(i int) []byte {
	begin := uint32(0)
	if i > 0 {
		begin = b.ends[i-1]
	}
	return b.data[begin:b.ends[i]]
}

func (a *auditRows) count() int { return len(a.full)*auditPerBlock + len(a.tail.ends) - a.skip }

// at returns the record at a position, 0 is the oldest.
func (a *auditRows) at(i int) []byte {
	i += a.skip
	if block := i / auditPerBlock; block < len(a.full) {
		return a.full[block].at(i % auditPerBlock)
	}
	return a.tail.at(i % auditPerBlock)
}

func (a *auditRows) append(r *model.AuditRecord) {
	a.tail.data = appendAudit(a.tail.data, r)
	a.tail.ends = append(a.tail.ends, uint32(len(a.tail.data)))
	a.last = r
	if len(a.tail.ends) == auditPerBlock {
		block := a.tail
		a.full = append(slices.Clip(a.full), &block)
		a.tail = auditBlock{data: make([]byte, 0, len(block.data)), ends: make([]uint32, 0, auditPerBlock)} // the next will be much like it
	}
}

// dropFirst lets the oldest record fall off.
func (a *auditRows) dropFirst() {
	if a.skip++; a.skip == auditPerBlock {
		a.full, a.skip = slices.Clone(a.full[1:]), 0
	}
}

// rows returns the version that a view sees.
func (l AuditLog) rows(s *Snapshot) *auditRows {
	if s.audit != nil {
		return s.audit
	}
	raw, err := s.txn.First(l.Name, "id", l.Name)
	must(err)
	if raw == nil {
		return &auditRows{}
	}
	return raw.(*auditRows)
}

// writable returns the version that tx works on.
func (l AuditLog) writable(tx *Tx) *auditRows {
	if tx.audit == nil {
		own := *l.rows(&tx.Snapshot)
		tx.audit = &own
	}
	return tx.audit
}

// Append adds a record, which the state owns from now on, stamps it with the log index, and lets the oldest
// fall off beyond keep. Its number must be greater than that of the last.
func (l AuditLog) Append(tx *Tx, index uint64, r *model.AuditRecord, keep int) {
	r.CreateIndex, r.ModifyIndex = index, index
	a := l.writable(tx)
	a.append(r)
	for a.count() > keep {
		a.dropFirst()
	}
	tx.touch(l.Name, index)
}

// Get returns the record with the key, or nil.
func (l AuditLog) Get(s *Snapshot, key string) *model.AuditRecord {
	seq, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return nil
	}
	a := l.rows(s)
	i := sort.Search(a.count(), func(i int) bool { n, _ := binary.Uvarint(a.at(i)); return n >= seq })
	if i == a.count() {
		return nil
	}
	if r := readAudit(a.at(i)); r.Seq == seq {
		return r
	}
	return nil
}

// All yields every record, oldest first.
func (l AuditLog) All(s *Snapshot) iter.Seq[*model.AuditRecord] {
	return func(yield func(*model.AuditRecord) bool) {
		a := l.rows(s)
		for i := range a.count() {
			if !yield(readAudit(a.at(i))) {
				return
			}
		}
	}
}

// Last returns the newest record, nil if there is none. It must not be changed.
func (l AuditLog) Last(s *Snapshot) *model.AuditRecord { return l.rows(s).last }

// Count is the number of records.
func (l AuditLog) Count(s *Snapshot) int { return l.rows(s).count() }

func (l AuditLog) restore(tx *Tx, r *model.AuditRecord) error {
	a := l.writable(tx)
	if a.last != nil && r.Seq <= a.last.Seq {
		return fmt.Errorf("record %d follows record %d", r.Seq, a.last.Seq)
	}
	a.append(r)
	return nil
}

func (l AuditLog) replace(tx *Tx, index uint64, from *Snapshot) {
	tx.audit = &auditRows{}
	for r := range l.All(from) {
		r.CreateIndex, r.ModifyIndex = min(r.CreateIndex, index), index
		tx.audit.append(r)
	}
	tx.touch(l.Name, index)
}

func defineAudit(name string) AuditLog {
	l := AuditLog{Name: name}
	schema := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		"id": {Name: "id", Unique: true, Indexer: keyIndexer[auditRows]{key: func(*auditRows) string { return name }, id: true}},
	}}
	registered = append(registered, &definition{
		name: name, schema: schema, before: []byte(recordPrefix(name)),
		newRow:  func() any { return &model.AuditRecord{} },
		restore: func(tx *Tx, row any) error { return l.restore(tx, row.(*model.AuditRecord)) },
		replace: l.replace,
		each: func(s *Snapshot, fn func(any) error) error {
			for r := range l.All(s) {
				if err := fn(r); err != nil {
					return err
				}
			}
			return nil
		},
		count: l.Count,
	})
	return l
}

// appendAudit encodes a record for memory: the number first, so that it can be searched for.
func appendAudit(b []byte, r *model.AuditRecord) []byte {
	for _, n := range []uint64{r.Seq, r.Index, r.CreateIndex, r.ModifyIndex} {
		b = binary.AppendUvarint(b, n)
	}
	at, err := r.At.AppendBinary(make([]byte, 0, 16))
	if err != nil { // a zone that no wire format has
		at, _ = r.At.UTC().AppendBinary(nil)
	}
	b = appendText(b, at)
	for _, s := range []string{r.Actor.Who, r.Actor.From, r.Actor.Node, r.Actor.Via, r.What, r.Subject} {
		b = appendText(b, s)
	}
	return appendText(appendText(b, r.Prev), r.Hash)
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// readAudit decodes what appendAudit has made.
func readAudit(b []byte) *model.AuditRecord {
	r := &model.AuditRecord{}
	for _, n := range []*uint64{&r.Seq, &r.Index, &r.CreateIndex, &r.ModifyIndex} {
		v, k := binary.Uvarint(b)
		*n, b = v, b[k:]
	}
	text := func() (head []byte) {
		n, k := binary.Uvarint(b)
		head, b = b[k:k+int(n)], b[k+int(n):]
		return head
	}
	var at time.Time
	must(at.UnmarshalBinary(text()))
	r.At = at
	for _, s := range []*string{&r.Actor.Who, &r.Actor.From, &r.Actor.Node, &r.Actor.Via, &r.What, &r.Subject} {
		*s = string(text())
	}
	if prev := text(); len(prev) > 0 {
		r.Prev = slices.Clone(prev)
	}
	r.Hash = slices.Clone(text())
	return r
}
