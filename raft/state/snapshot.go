package state

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
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

// formatPrefix and the protocol level of the cluster are the format of the
// stream. A reader refuses a level that it does not speak: it would drop what
// it does not know.
const formatPrefix = "appliance-state/"

// FormatLevel is the protocol level of a snapshot of the view.
func (s *Snapshot) FormatLevel() int {
	for c := range Clusters.All(s) {
		return c.Protocol()
	}
	return 1
}

// Write streams the view as JSON lines; memory use does not depend on size.
func (s *Snapshot) Write(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	h := header{Format: formatPrefix + strconv.Itoa(s.FormatLevel()), Index: s.Index(), Tables: map[string]uint64{}}
	for _, d := range registered {
		if at := s.TableIndex(d.name); at > 0 { // an older version need not know tables that were never used
			h.Tables[d.name] = at
		}
		h.Rows += d.count(s)
	}
	if err := json.NewEncoder(out).Encode(h); err != nil {
		return err
	}
	for _, d := range registered {
		if err := s.writeTable(context.Background(), out, d.name); err != nil {
			return fmt.Errorf("write table %s: %w", d.name, err)
		}
	}
	return out.Flush()
}

// writeTable writes the rows of a table as records, in the order of ids.
func (s *Snapshot) writeTable(ctx context.Context, out *bufio.Writer, table string) error {
	d := tableNamed(table)
	return d.each(s, func(row any) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw, err := json.Marshal(row)
		if err != nil {
			return err
		}
		out.Write(d.before)
		out.Write(raw)
		_, err = out.WriteString("}\n") // earlier errors come back here, too
		return err
	})
}

func recordPrefix(table string) string { return `{"t":` + strconv.Quote(table) + `,"r":` }

// Restore replaces the whole state by a snapshot stream. Nothing changes
// unless the stream is complete and all of it is understood; if a newer
// version is needed for that, the error is a NewerError. Everybody who waits
// on an old view wakes up.
func (s *Store) Restore(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxRecord)
	next := newGeneration()
	tx := next.begin()
	defer tx.Abort() // no effect after Commit
	h, err := readHeader(lines)
	if err != nil {
		return err
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

func readHeader(lines *bufio.Scanner) (header, error) {
	var h header
	if err := scanJSON(lines, &h); err != nil {
		return h, fmt.Errorf("snapshot header: %w", err)
	}
	version, ours := strings.CutPrefix(h.Format, formatPrefix)
	level, err := strconv.Atoi(version)
	switch {
	case !ours || err != nil || level < 1:
		return h, fmt.Errorf("snapshot format %q is not known to this version", h.Format)
	case level > reads:
		return h, newerLevel("the snapshot", level)
	}
	for table := range h.Tables {
		if tableNamed(table) == nil && h.Tables[table] > 0 {
			return h, newerTable(table)
		}
	}
	return h, nil
}

func tableNamed(name string) *definition {
	for _, d := range registered {
		if d.name == name {
			return d
		}
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
