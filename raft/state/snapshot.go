package state

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// maxRecord bounds one record of a snapshot: a KV value of 512 KiB in base64
// with room to spare.
const maxRecord = 16 << 20

// header is the first line of a snapshot stream.
type header struct {
	Format string            `json:"format"`
	Index  uint64            `json:"index"`
	Tables map[string]uint64 `json:"tables"` // index of each table's last change
	Rows   int               `json:"rows"`
}

// record is every further line.
type record struct {
	Table string          `json:"t"`
	Row   json.RawMessage `json:"r"`
}

// formatName carries the version of the stream. A reader refuses what it does
// not know.
const formatName = "appliance-state/1"

// Write streams the view as JSON lines; memory use does not depend on size.
func (s *Snapshot) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	h := header{Format: formatName, Index: s.Index(), Tables: map[string]uint64{}}
	for _, d := range registered {
		h.Tables[d.name] = s.TableIndex(d.name)
		if err := s.each(d.name, func(any) error { h.Rows++; return nil }); err != nil {
			return err
		}
	}
	if err := enc.Encode(h); err != nil {
		return err
	}
	for _, d := range registered {
		err := s.each(d.name, func(row any) error {
			raw, err := json.Marshal(row)
			if err != nil {
				return err
			}
			return enc.Encode(record{Table: d.name, Row: raw})
		})
		if err != nil {
			return fmt.Errorf("write table %s: %w", d.name, err)
		}
	}
	return out.Flush()
}

func (s *Snapshot) each(table string, fn func(any) error) error {
	it, err := s.txn.Get(table, "id")
	if err != nil {
		return err
	}
	for raw := it.Next(); raw != nil; raw = it.Next() {
		if err := fn(raw); err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces the whole state by a snapshot stream. Nothing changes
// unless the stream is complete. Everybody who waits on an old view wakes up.
func (s *Store) Restore(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxRecord)
	next := newGeneration()
	tx := &Tx{Snapshot: Snapshot{txn: next.db.Txn(true), abandoned: next.abandoned}}
	defer tx.Abort() // no effect after Commit
	var h header
	if err := scanJSON(lines, &h); err != nil {
		return fmt.Errorf("snapshot header: %w", err)
	}
	if h.Format != formatName {
		return fmt.Errorf("snapshot format %q is not known to this version (it reads %q): run a newer version", h.Format, formatName)
	}
	if err := restoreRows(tx, lines, h.Rows); err != nil {
		return err
	}
	for table, index := range h.Tables {
		if index > 0 {
			tx.touch(table, index)
		}
	}
	tx.putIndex(eventCount, uint64(Events.Count(&tx.Snapshot)))
	tx.Commit(h.Index)
	old := s.current.Swap(next)
	close(old.abandoned)
	return nil
}

func restoreRows(tx *Tx, lines *bufio.Scanner, rows int) error {
	tables := map[string]*definition{}
	for _, d := range registered {
		tables[d.name] = d
	}
	for range rows {
		var rec record
		if err := scanJSON(lines, &rec); err != nil {
			return fmt.Errorf("snapshot is cut short or damaged: %w", err)
		}
		d := tables[rec.Table]
		if d == nil {
			return fmt.Errorf("snapshot has a table %q that this version does not know: run a newer version", rec.Table)
		}
		row := d.newRow()
		if err := json.Unmarshal(rec.Row, row); err != nil {
			return fmt.Errorf("snapshot row of table %s: %w", rec.Table, err)
		}
		d.restore(tx, row)
	}
	return nil
}

func scanJSON(lines *bufio.Scanner, v any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(lines.Bytes(), v)
}
