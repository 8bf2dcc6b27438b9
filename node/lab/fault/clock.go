package fault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// ClockFile holds the offset in nanoseconds that a binary built for it adds to
// the time of day (Makefile: build-skewed). It is in the records' directory.
const ClockFile = "clock"

func (m Machine) clock(live []Fault) error {
	path := filepath.Join(m.Dir, ClockFile)
	for i := len(live) - 1; i >= 0; i-- {
		if live[i].Kind == Clock {
			if err := os.WriteFile(path+".new", []byte(strconv.FormatInt(int64(live[i].Offset), 10)), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SkewedMark is in the version of a binary whose clock can be wrong.
const SkewedMark = "skewed"
