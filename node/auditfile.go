package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/durable"
	"appliance/raft/state"
)

const (
	auditPerFile = 10000 // records; some 4 MB
	// auditFiles bounds what a master keeps: two million records, under 1 GB.
	auditFiles = 200
	// auditPause lets records gather, so that a busy hour does not mean a sync
	// of the disk for each.
	auditPause = time.Second
)

// auditFile keeps the audit log on a master's disk, as JSON lines, for longer
// than the state does. Files are named after their first record's number.
type auditFile struct {
	dir   string
	aside string // directory for damaged files
	store *state.Store
	each  uint64 // records in a file
	log   *slog.Logger
	next  uint64 // number of the next record to write
}

// Run writes until ctx ends. A disk that fails is tried again: the state has
// the records for a while.
func (a *auditFile) Run(ctx context.Context) error {
	ready, failing := false, false
	for ctx.Err() == nil {
		snap := a.store.Snapshot()
		err := error(nil)
		if !ready {
			err = a.open()
			ready = err == nil
		}
		if err == nil {
			err = a.write(snap)
		}
		if failing != (err != nil) {
			if failing = err != nil; failing {
				a.log.Error("the audit log cannot be written to this master's disk; the state keeps the newest records", "dir", a.dir, "err", err)
			}
		}
		pause(ctx, auditPause)
		if err == nil {
			_ = snap.Wait(ctx, state.Audit.Name) // ends with ctx only
		}
	}
	return nil
}

// open finds where an earlier process stopped, and cuts off a line that a
// crash has left unfinished. A newest file that is damaged goes aside: what the
// state still has of it is written again. Older ones are the
// auditCheck's.
func (a *auditFile) open() error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	a.next = 1
	files, err := a.files()
	if err != nil || len(files) == 0 {
		return err
	}
	path := files[len(files)-1]
	if _, err := fmt.Sscanf(filepath.Base(path), "%d.jsonl", &a.next); err != nil {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(raw, '\n') + 1
	last, err := lastRecord(raw[:whole])
	if err != nil {
		kept, asideErr := durable.Aside(path, a.aside, time.Now())
		a.log.Error("a file of the audit log is damaged", "file", path, "err", err, "kept", kept)
		return asideErr
	}
	if last > 0 { // 0: crashed before the first line
		a.next = last + 1
	}
	if whole == len(raw) {
		return nil
	}
	return os.Truncate(path, int64(whole))
}

// lastRecord is the number of the last record in lines, 0 if there is none.
// Some may be missing in between, see gap.
func lastRecord(lines []byte) (uint64, error) {
	last, err := chain(model.AuditRecord{}, lines)
	return last.Seq, err
}

// chain follows lines that come after the record last, if that is any, and returns the new last one.
func chain(last model.AuditRecord, lines []byte) (model.AuditRecord, error) {
	for line := range bytes.Lines(lines) {
		var r model.AuditRecord
		if err := json.Unmarshal(line, &r); err != nil {
			return last, fmt.Errorf("after record %d: %w", last.Seq, err)
		}
		if r.Seq <= last.Seq || !bytes.Equal(r.Hash, r.Sum()) || r.Seq == last.Seq+1 && last.Seq > 0 && !bytes.Equal(r.Prev, last.Hash) {
			return last, fmt.Errorf("what comes after record %d is not as it was written", last.Seq)
		}
		last = r
	}
	return last, nil
}

// firstLine is the length of the first line.
func firstLine(lines []byte) int { return bytes.IndexByte(lines, '\n') + 1 }

func (a *auditFile) files() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(a.dir, "*.jsonl"))
	slices.Sort(files)
	return files, err
}

// write appends what the view has and the files have not.
func (a *auditFile) write(snap *state.Snapshot) error {
	for {
		var rows []*model.AuditRecord
		first := a.next
		for seq := a.next; uint64(len(rows)) < a.each; seq++ {
			row := state.Audit.Get(snap, model.AuditKey(seq))
			if row == nil {
				break
			}
			if rows = append(rows, row); (seq-1)/a.each != seq/a.each {
				break // the file is full
			}
		}
		if len(rows) == 0 {
			skip := a.gap(snap)
			if !skip {
				return nil
			}
			continue
		}
		if err := a.append(first, rows); err != nil {
			a.next = first
			return errors.Join(err, a.open())
		}
		a.next = first + uint64(len(rows))
		if err := a.expire(); err != nil {
			return err
		}
	}
}

// gap steps over records that fell out of the state while this master was
// away, and reports whether there were any.
func (a *auditFile) gap(snap *state.Snapshot) bool {
	for row := range state.Audit.All(snap) {
		if row.Seq <= a.next {
			return false
		}
		a.log.Warn("audit records are missing in this master's files; other masters have them", "from", a.next, "to", row.Seq-1)
		a.next = row.Seq
		return true
	}
	return false
}

func (a *auditFile) append(first uint64, rows []*model.AuditRecord) error {
	begin := (first-1)/a.each*a.each + 1
	file, err := os.OpenFile(filepath.Join(a.dir, fmt.Sprintf("%020d.jsonl", begin)), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	enc := json.NewEncoder(out)
	for _, row := range rows {
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	if err := errors.Join(out.Flush(), file.Sync()); err != nil {
		return err
	}
	if first == begin {
		return syncDir(a.dir)
	}
	return nil
}

func (a *auditFile) expire() error {
	files, err := a.files()
	for ; err == nil && len(files) > auditFiles; files = files[1:] {
		err = os.Remove(files[0])
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
