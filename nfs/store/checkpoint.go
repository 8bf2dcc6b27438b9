package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"appliance/nfs/proto"
)

const (
	snapshotName  = "snapshot"
	snapshotMagic = "appliance volume snapshot\n"
)

// Checkpoint makes data files durable, saves the table, and drops the log that both now contain.
func (v *Volume) Checkpoint() error {
	v.mu.Lock()
	last, err := v.wal.rotate()
	var table []byte
	var dirty map[Ino]*file
	if err == nil {
		table = v.t.Encode()
		dirty = v.files.takeDirty()
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	if err := v.files.sync(dirty); err != nil {
		return err
	}
	if err := vouch(v.dir, last); err != nil {
		return err
	}
	if err := writeSnapshot(v.dir, table); err != nil {
		return err
	}
	return dropSegments(v.dir, last)
}

func writeSnapshot(dir string, table []byte) error {
	head := binary.BigEndian.AppendUint32([]byte(snapshotMagic), crc32.Checksum(table, castagnoli))
	return replaceFile(filepath.Join(dir, snapshotName), head, table)
}

// replaceFile writes a file so that after a crash it is the old or the new one.
func replaceFile(path string, parts ...[]byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range parts {
		_, err := f.Write(p)
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, f.Sync(), f.Close())...); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// dropSegments deletes log segments that hold nothing after last.
func dropSegments(dir string, last uint64) error {
	segs, err := segments(dir)
	if err != nil {
		return err
	}
	for i, s := range segs {
		if i+1 < len(segs) && segs[i+1].first <= last+1 {
			if err := os.Remove(s.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads the snapshot and replays the log into table and data files.
func (v *Volume) load() error {
	t, err := readSnapshot(v.dir)
	if errors.Is(err, os.ErrNotExist) {
		if segs, err := segments(v.dir); err != nil || len(segs) > 0 {
			return errors.Join(err, errors.New("there is a log but no snapshot: restore the volume from a replica or a backup"))
		}
		t = NewTable(v.o.Mode, v.o.UID, v.o.GID, v.now())
		err = writeSnapshot(v.dir, t.Encode())
	}
	if err != nil {
		return err
	}
	v.t = t
	if err := v.files.believe(v.dir, t.lsn); err != nil {
		return err
	}
	_, err = replay(v.dir, t.lsn, v.redo)
	return err
}

func readSnapshot(dir string) (*Table, error) {
	b, err := os.ReadFile(filepath.Join(dir, snapshotName))
	if err != nil {
		return nil, err
	}
	body, ok := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !ok || len(body) < 4 || crc32.Checksum(body[4:], castagnoli) != binary.BigEndian.Uint32(body) {
		return nil, fmt.Errorf("snapshot in %s is damaged: restore the volume from a replica or a backup", dir)
	}
	return DecodeTable(body[4:])
}

// redo applies one record to table and data files. Doing it twice gives the same result.
func (v *Volume) redo(r *Record) error {
	n := v.t.inodes[r.Ino]
	if n != nil && n.Kind == proto.Reg {
		if err := v.redoData(n, r); err != nil {
			return err
		}
	}
	return v.t.Apply(r)
}

func (v *Volume) redoData(n *inode, r *Record) error {
	f := v.files.acquire(n.Ino)
	defer v.files.release(f)
	switch {
	case r.Op == OpWrite:
		v.files.changed(f, r.Off, uint64(len(r.Data)))
		return v.files.write(n.Ino, f, n.Size, r.Off, r.Data)
	case r.Op == OpSetAttr && r.Set.Mask.Has(proto.AttrSize):
		if r.Set.Size < n.Size {
			v.files.cut(f, r.Set.Size)
		}
		return v.files.truncate(n.Ino, f, n.Size, min(n.Size, r.Set.Size))
	case r.Op == OpFree:
		f.fresh = false
		return v.files.remove(n.Ino)
	}
	return nil
}
