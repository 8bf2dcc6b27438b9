package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"appliance/node/doctor"
	"appliance/node/model"
)

const (
	// auditCheckPause keeps a look at all files cheap: each costs about a tenth of a second.
	auditCheckPause = time.Second
	// auditCheckEvery is how often they are looked at, for disks lose bits while they rest too;
	// auditCheckAgain is the same while one is damaged.
	auditCheckEvery, auditCheckAgain = 24 * time.Hour, 10 * time.Minute
)

// auditCheck reads a master's finished audit files over and over, slowly, and knows which of them are not as
// they were written. The newest file is the auditFile's. Safe for concurrent use.
type auditCheck struct {
	dir   string
	pause time.Duration // between files
	log   *slog.Logger

	mu  sync.Mutex
	bad map[string]string // path -> why
}

// Run looks until ctx ends.
func (c *auditCheck) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		bad := c.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.mu.Lock()
		for path, why := range bad {
			if c.bad[path] == "" {
				c.log.Error("a file of the audit log is damaged", "file", path, "err", why)
			}
		}
		c.bad = bad
		c.mu.Unlock()
		if len(bad) > 0 {
			pause(ctx, auditCheckAgain)
		} else {
			pause(ctx, auditCheckEvery)
		}
	}
	return nil
}

// look reads the finished files in their order.
func (c *auditCheck) look(ctx context.Context) map[string]string {
	files, err := (&auditFile{dir: c.dir}).files()
	bad := map[string]string{}
	if err != nil || len(files) == 0 {
		return bad
	}
	var last model.AuditRecord
	for _, path := range files[:len(files)-1] {
		if pause(ctx, c.pause); ctx.Err() != nil {
			break
		}
		if last, err = c.file(path, last); err != nil {
			bad[path] = err.Error()
		}
	}
	return bad
}

// file checks one file, and that nothing is missing between it and the one before, of which last is the end. Records
// that this master never had (see gap) are no damage: they do not end with a file. One that has just expired is none.
func (c *auditCheck) file(path string, last model.AuditRecord) (end model.AuditRecord, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		if os.IsNotExist(err) {
			err = nil
		}
		return end, err
	}
	if end, err = chain(last, raw); err != nil {
		return model.AuditRecord{}, err
	}
	if end.Seq == last.Seq {
		return end, fmt.Errorf("it is empty")
	}
	var begin uint64
	first, _ := chain(model.AuditRecord{}, raw[:firstLine(raw)])
	if _, err := fmt.Sscanf(filepath.Base(path), "%d.jsonl", &begin); err != nil {
		return end, err
	}
	if first.Seq == begin && last.Seq > 0 && last.Seq+1 < begin {
		return end, fmt.Errorf("the records %d to %d before it are missing", last.Seq+1, begin-1)
	}
	return end, nil
}

// damaged are the files that are not as they were written, for the doctor.
func (c *auditCheck) damaged() (out []doctor.Damage) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(c.bad)) {
		out = append(out, doctor.Damage{File: path, Why: c.bad[path],
			Fix: "the other masters have the records: compare with appliance audit verify FILE there, and copy their file here"})
	}
	return out
}
