package feed

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	snapshotFile = "feed.snapshot"
	saveQuiet    = time.Second      // the log rests for that long: the time to save
	saveSoon     = 2 * time.Second  // the least pause between two saves
	saveBusy     = 10 * time.Second // the least pause while the log never rests: seven nodes may share two cores
	saveShare    = 100              // saving takes at most this part of the time: one in a hundred
	saveEvery    = 30 * time.Second // the longest pause: what a restart without any master may be behind
	// maxSnapshot bounds what a follower takes from a master.
	maxSnapshot = 4 << 30
)

var errDamaged = errors.New("the saved state is damaged")

func (f *Follower) path() string { return filepath.Join(f.conf.Dir, snapshotFile) }

// load restores the saved snapshot. A damaged file is put aside: a master has everything.
func (f *Follower) load() error {
	if err := os.MkdirAll(f.conf.Dir, 0o700); err != nil {
		return fmt.Errorf("feed directory: %w", err)
	}
	for _, old := range leftovers(f.conf.Dir) {
		os.Remove(old)
	}
	file, err := os.Open(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("saved state: %w", err)
	}
	defer file.Close()
	body, err := verified(file)
	if err == nil {
		err = f.conf.Replica.Restore(body)
	}
	if halted := f.conf.Replica.Err(); halted != nil {
		return halted // the file is good, this version is too old for it
	}
	if err != nil {
		f.conf.Log.Warn("saved state is not usable, taking it anew from a master", "file", f.path(), "err", err)
		return os.Rename(f.path(), f.path()+".damaged")
	}
	f.saved = f.conf.Replica.Applied()
	if info, err := file.Stat(); err == nil {
		f.status.Loaded = info.ModTime()
	}
	return nil
}

// confirm notes that what is on disk was the cluster's state when a master was last heard. The file's
// time keeps it: after a restart without masters the node can tell how old its knowledge is. Only for
// the persist loop.
func (f *Follower) confirm() {
	at := f.Status().Contact
	if !at.After(f.confirmed) || f.conf.Replica.Applied() != f.saved {
		return
	}
	if err := os.Chtimes(f.path(), time.Time{}, at); err == nil {
		f.confirmed = at
	}
}

func leftovers(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, snapshotFile+".*.tmp"))
	return names
}

// verified checks the trailing CRC-32C of a snapshot file and returns what comes before it.
func verified(file *os.File) (io.Reader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size() - crc32.Size
	if size < 0 {
		return nil, errDamaged
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size)); err != nil {
		return nil, err
	}
	var want [crc32.Size]byte
	if _, err := file.ReadAt(want[:], size); err != nil {
		return nil, err
	}
	if sum.Sum32() != binary.BigEndian.Uint32(want[:]) {
		return nil, errDamaged
	}
	return io.NewSectionReader(file, 0, size), nil
}

// persist saves a snapshot when the log comes to rest after a change, seldom while it does not, and at the
// end: a node that is killed and finds no master afterwards goes on from there. What a save has cost
// spaces them out, so that a large state is not written all the time; when the masters are gone, what they
// said last is saved at once.
func (f *Follower) persist(ctx context.Context) {
	var cost time.Duration
	last, seen := time.Now(), f.conf.Replica.Applied()
	for ctx.Err() == nil {
		wait(ctx, saveQuiet)
		at := f.conf.Replica.Applied()
		quiet := at == seen
		seen = at
		st := f.Status()
		alone := st.Master == "" && !st.Contact.IsZero()
		if at == f.saved && (alone || st.Contact.Sub(f.confirmed) >= saveEvery) {
			f.confirm()
		}
		if ctx.Err() == nil && (at == f.saved || time.Since(last) < savePause(cost, quiet, alone)) {
			continue
		}
		began := time.Now()
		if err := f.Save(); err != nil {
			f.conf.Log.Warn("cannot save the state: after a restart without masters this node would know less", "err", err)
		}
		f.confirm()
		last = time.Now()
		cost = last.Sub(began)
	}
}

// savePause is how long after a save that took cost the next may begin: at once when no master
// feeds any more, since nobody might tell a restarted node what this one knows.
func savePause(cost time.Duration, quiet, alone bool) time.Duration {
	least := saveBusy
	switch {
	case alone:
		return 0
	case quiet:
		least = saveSoon
	}
	return min(max(least, saveShare*cost), saveEvery)
}

// Save writes a snapshot to disk now, if anything has changed. Only for one caller at a time; Run calls
// it too.
func (f *Follower) Save() error {
	if f.conf.Replica.Applied() == f.saved || f.conf.Replica.Err() != nil {
		return nil
	}
	snap, err := f.conf.Replica.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	err = f.replace(func(w io.Writer) error {
		_, err := snap.WriteTo(w)
		return err
	}, nil)
	if err == nil {
		f.saved = snap.Index
	}
	return err
}

// replace writes the snapshot file through a temporary one, adds the checksum, and renames it after use,
// if given, has accepted it.
func (f *Follower) replace(write func(io.Writer) error, use func(*os.File) error) error {
	tmp, err := os.CreateTemp(f.conf.Dir, snapshotFile+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	defer tmp.Close()
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(tmp, chunk)
	if err := write(io.MultiWriter(out, sum)); err != nil {
		return err
	}
	out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	if err := errors.Join(out.Flush(), tmp.Sync()); err != nil {
		return fmt.Errorf("write %s: %w", tmp.Name(), err)
	}
	if use != nil {
		if err := use(tmp); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp.Name(), f.path()); err != nil {
		return err
	}
	return syncDir(f.conf.Dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// receive takes a snapshot from the stream to disk, verifies it, and only then replaces the state.
func (f *Follower) receive(in *bufio.Reader, head frame, dog *time.Timer) error {
	err := f.replace(func(w io.Writer) error {
		return copySnapshot(w, in, dog)
	}, func(file *os.File) error {
		body, err := verified(file)
		if err != nil {
			return err
		}
		dog.Stop() // a large restore takes its time; the stream waits
		defer dog.Reset(silence)
		return f.conf.Replica.Restore(body)
	})
	if err != nil {
		return fmt.Errorf("take snapshot at index %d: %w", head.nums[0], err)
	}
	f.reset = false
	f.conf.Log.Info("state replaced by a snapshot", "index", head.nums[0])
	return nil
}

func copySnapshot(w io.Writer, in *bufio.Reader, dog *time.Timer) error {
	var sum uint32
	for total := 0; total <= maxSnapshot; {
		fr, err := readFrame(in)
		if err != nil {
			return err
		}
		dog.Reset(silence)
		switch fr.kind {
		case kindData:
			sum = crc32.Update(sum, castagnoli, fr.data)
			total += len(fr.data)
			if _, err := w.Write(fr.data); err != nil {
				return err
			}
		case kindEnd:
			if len(fr.data) != crc32.Size || binary.BigEndian.Uint32(fr.data) != sum {
				return errDamaged
			}
			return nil
		default:
			return fmt.Errorf("%w: kind %q within a snapshot", errFrame, fr.kind)
		}
	}
	return fmt.Errorf("%w: the snapshot exceeds %d bytes", errFrame, int64(maxSnapshot))
}
