package raft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"appliance/raft/durable"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// exam is what reading a data directory as a whole brought. Reading changes nothing.
type exam struct {
	walDir, witness string
	meta            metaContent
	metaAgain       bool // the database has to be made anew
	metaBroken      bool // since it is damaged
	found           bool // there was a log
	newer           bool // and something wrote to it that keeps no second copies
	first, last     uint64
	lastTerm        uint64
	sums            []uint32 // of first..last
	servers         hraft.Configuration
	snaps           []snapFile
	best            *snapFile // the newest intact one
	tail            tailRecord
	hasTail         bool
	wipe            *wiping
	aside           []string // segments and snapshots that are damaged and not needed
	damage          []Damage
	copy            *durable.Slots // open after repair
}

type wiping struct {
	path       string
	begin, end int64
	why        string
}

// examine reads all files of the log in dir and compares them with their checksums, with each other and
// with the second copies in witness.
func examine(dir, witness string) (*exam, error) {
	e := &exam{walDir: filepath.Join(dir, "log"), witness: witness}
	var err error
	if e.tail, e.hasTail, err = readTail(filepath.Join(witness, tailFile)); err != nil {
		return nil, err
	}
	if e.snaps, err = readSnapshots(dir); err != nil {
		return nil, err
	}
	for i := range e.snaps {
		if s := &e.snaps[i]; s.damage == nil && (e.best == nil || s.index > e.best.index) {
			e.best = s
		}
	}
	e.readMeta()
	if len(e.damage) > 0 {
		return e, nil
	}
	if err := e.readSegments(); err != nil {
		return nil, err
	}
	e.compareTail()
	e.judgeSnapshots()
	return e, nil
}

func (e *exam) bad(file, format string, args ...any) {
	e.damage = append(e.damage, Damage{file, fmt.Sprintf(format, args...)})
}

// readMeta finds out which segments there must be, and the vote.
func (e *exam) readMeta() {
	path := filepath.Join(e.walDir, metadb.FileName)
	var err error
	if e.meta, e.found, e.metaAgain, e.newer, err = settleMeta(e.walDir, e.witness); err != nil {
		e.bad(path, "%v", cause(err))
		return
	}
	e.metaBroken = e.metaAgain && !e.newer
	old, _ := filepath.Glob(filepath.Join(e.walDir, "*.wal"))
	if !e.found && (len(old) > 0 || len(e.snaps) > 0 || e.hasTail) {
		e.bad(path, "it is missing, and with it the vote")
	}
}

func (e *exam) readSegments() error {
	all := e.meta.State.Segments
	for i, info := range all {
		path := segmentPath(e.walDir, info)
		sealed := !info.SealTime.IsZero()
		s, err := scanSegment(path, info)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !sealed && i == len(all)-1:
			s = &segment{} // it is made with its first entry; compareTail knows better
		case err != nil && !sealed:
			e.bad(path, "%v", cause(err))
			continue
		}
		if sealed {
			if what := incomplete(info, s, err); what == "" {
				e.take(path, info, s, info.MaxIndex)
			} else if e.best != nil && e.best.index >= info.MaxIndex {
				e.drop(all[:i+1], all[i+1:])
			} else {
				e.bad(path, "%s", what)
			}
			continue
		}
		e.take(path, info, s, info.BaseIndex+uint64(len(s.entries))-1)
		if s.indexStart != 0 {
			e.meta.State, e.metaAgain = rotated(e.meta.State, s, time.Now()), true
		}
		if s.dirty > 0 {
			e.wipe = &wiping{path, s.end, s.dirty, s.bad}
		}
	}
	return nil
}

// incomplete says what a sealed segment lacks, "" if it is whole.
func incomplete(info types.SegmentInfo, s *segment, err error) string {
	if err != nil {
		return cause(err).Error()
	}
	have := info.BaseIndex + uint64(len(s.entries)) - 1
	switch {
	case s.indexStart != 0 && s.indexStart == info.IndexStart && have >= info.MaxIndex:
		return ""
	case s.bad != "":
		return fmt.Sprintf("%s: entries from %d on cannot be read", s.bad, have+1)
	}
	return fmt.Sprintf("it ends with entry %d of %d", have, info.MaxIndex)
}

// drop leaves out segments whose entries are all in a snapshot. They are kept for masters that were away
// only, which get the snapshot instead.
func (e *exam) drop(gone, rest []types.SegmentInfo) {
	for _, info := range gone {
		if path := segmentPath(e.walDir, info); exists(path) && !slices.Contains(e.aside, path) {
			e.aside = append(e.aside, path)
		}
	}
	e.first, e.last, e.lastTerm, e.sums = 0, 0, 0, nil
	e.meta.State.Segments, e.metaAgain = rest, true
}

// take adds the entries of a segment up to last.
func (e *exam) take(path string, info types.SegmentInfo, s *segment, last uint64) {
	if len(s.entries) == 0 || last < info.MinIndex {
		return
	}
	if e.last > 0 && info.MinIndex != e.last+1 {
		e.bad(path, "it begins with entry %d, and %d comes next", info.MinIndex, e.last+1)
		return
	}
	if e.last == 0 {
		e.first = info.MinIndex
	}
	for i := info.MinIndex; i <= last; i++ {
		e.sums = append(e.sums, s.entries[i-info.BaseIndex].sum)
	}
	e.last, e.lastTerm = last, s.entries[last-info.BaseIndex].term
	if s.servers != nil {
		e.servers = decodeServers(s.servers)
	}
}

func decodeServers(raw []byte) (c hraft.Configuration) {
	defer func() {
		if recover() != nil {
			c = hraft.Configuration{}
		}
	}()
	return hraft.DecodeConfiguration(raw)
}

// compareTail tells an end of the log that is damaged from a write that was never finished: of the
// first, this node has noted that it had been stored.
func (e *exam) compareTail() {
	if len(e.damage) > 0 {
		return
	}
	if !e.hasTail || e.newer {
		if e.wipe != nil {
			e.bad(e.wipe.path, "%s, and it is not known what was stored after entry %d", e.wipe.why, e.last)
		}
		return
	}
	switch {
	case e.tail.last > e.last:
		file, why := segmentOf(e.walDir, e.tail.last), "it ends too early"
		if n := len(e.meta.State.Segments); n > 0 {
			file = segmentPath(e.walDir, e.meta.State.Segments[n-1])
		}
		if !exists(file) {
			why = "it is missing"
		}
		if e.wipe != nil {
			file, why = e.wipe.path, e.wipe.why
		}
		e.bad(file, "%s: entries %d to %d were stored and cannot be read", why, e.last+1, e.tail.last)
	case e.tail.last >= e.first && e.tail.last > 0 && e.sums[e.tail.last-e.first] != e.tail.sum:
		e.bad(segmentOf(e.walDir, e.tail.last), "entry %d is not the one that was stored", e.tail.last)
	}
}

// judgeSnapshots decides which damage of snapshots is harmless: an older snapshot and the log after it
// give the same state, as long as no entry is missing between them and the end of what was stored.
func (e *exam) judgeSnapshots() {
	var floor uint64
	if e.best != nil {
		floor = e.best.index
		if len(e.servers.Servers) == 0 {
			e.servers = e.best.conf
		}
	}
	whole := e.last > 0 && e.first <= floor+1
	for _, s := range e.snaps {
		switch {
		case s.damage == nil:
		case s.index <= floor || whole && e.last >= s.index:
			e.aside = append(e.aside, s.dir)
		default:
			e.damage = append(e.damage, *s.damage)
		}
	}
	if len(e.damage) > 0 {
		return
	}
	dir := filepath.Join(filepath.Dir(e.walDir), snapDir)
	if e.last > 0 && !whole && e.last > floor {
		e.bad(dir, "the snapshot up to entry %d is missing: the log begins with entry %d", e.first-1, e.first)
	}
	if e.hasTail && !e.newer && max(floor, e.last) < e.tail.snap {
		e.bad(dir, "the snapshot up to entry %d is missing", e.tail.snap)
	}
}

// err is what keeps the node from opening its log.
func (e *exam) err() error {
	if len(e.damage) == 0 {
		return nil
	}
	return &DamageError{Files: e.damage}
}

// repair does what is provably harmless, and opens the second copy of the database. aside is where files are moved that are not needed any more.
func (e *exam) repair(aside string, log hclog.Logger) error {
	if err := os.MkdirAll(e.witness, 0o700); err != nil {
		return err
	}
	var err error
	if e.copy, err = durable.OpenSlots(filepath.Join(e.witness, metaCopyFile), metaSlot); err != nil {
		return err
	}
	for _, path := range e.aside {
		place, err := durable.Aside(path, aside, time.Now())
		if err != nil {
			return err
		}
		log.Warn("damaged files are left out; what they held is in an intact snapshot or in the log", "files", path, "damaged", place)
	}
	if e.metaAgain {
		path := filepath.Join(e.walDir, metadb.FileName)
		if e.metaBroken && exists(path) {
			place, err := durable.Aside(path, aside, time.Now())
			if err != nil {
				return err
			}
			log.Warn("a damaged file was made again from its second copy", "file", path, "damaged", place)
		}
		if err := rebuildMeta(e.walDir, e.copy, e.meta); err != nil {
			return err
		}
	}
	if w := e.wipe; w != nil {
		log.Warn("an unfinished write at the end of the log is left out", "file", w.path, "why", w.why, "last", e.last)
		if err := wipe(w.path, w.begin, w.end); err != nil {
			return err
		}
	}
	for _, s := range e.snaps {
		if s.damage == nil && s.unsum {
			if err := sealSnapshot(s.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// record is the tail record that agrees with what was found.
func (e *exam) record() tailRecord {
	r := tailRecord{last: e.last, snap: e.tail.snap}
	if e.best != nil {
		r.snap = max(r.snap, e.best.index)
	}
	if n := len(e.sums); n > 0 {
		r.sum = e.sums[n-1]
	}
	return r
}
