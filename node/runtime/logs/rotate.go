package logs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// MaxBytes is the default size of one log file; with one rotated file kept, a
// container's output takes at most four times that.
const MaxBytes = 10 << 20

// rotateEvery is how often sizes are looked at: a container writing 100 MB/s
// overshoots by half a gigabyte at worst.
const rotateEvery = 5 * time.Second

// Rotate copies each file over max bytes to its ".1" and truncates it. The
// writer holds the file open in append mode and goes on at the start. Bytes
// written between the last read and the truncate are lost: the copy runs to
// the end of the file right before, which leaves microseconds.
func Rotate(dir string, max int64) error {
	var errs []error
	for _, name := range []string{Stdout, Stderr} {
		if err := rotateFile(filepath.Join(dir, name), max); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func rotateFile(path string, max int64) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() <= max {
		return err
	}
	in, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := path + rotated + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // a no-op after the rename
	if _, err = io.Copy(out, in); err == nil {
		err = in.Truncate(0)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// The new inode of ".1" tells followers that the offset starts over.
	return os.Rename(tmp, path+rotated)
}

// RunRotation rotates the directories that dirs returns until ctx ends.
func RunRotation(ctx context.Context, log *slog.Logger, dirs func() []string) {
	t := time.NewTicker(rotateEvery)
	defer t.Stop()
	failing := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, dir := range dirs() {
			err := Rotate(dir, MaxBytes)
			if err != nil && !failing[dir] {
				log.Warn("logs are not rotated", "dir", dir, "err", err)
			}
			if err == nil {
				delete(failing, dir)
			} else {
				failing[dir] = true
			}
		}
	}
}
