// Package logs keeps a container's output in two plain files, "stdout" and
// "stderr", in a directory of its own. The engine's shim appends to them, so
// logging needs no agent; this package prepares, rotates, reads and follows
// them. The same files serve `appliance logs` and Mesos' /files/read.
package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The names of the files in a log directory. Rotated ends in ".1".
const (
	Stdout  = "stdout"
	Stderr  = "stderr"
	rotated = ".1"
)

// Prepare makes the directory and both files. Existing content stays: a
// container that is created again goes on in the same files.
func Prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	for _, name := range []string{Stdout, Stderr} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("make log file: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("make log file: %w", err)
		}
	}
	return nil
}

// maxRead bounds one Read, so that no caller can ask for a whole disk.
const maxRead = 1 << 20

// Read returns up to length bytes of a stream from offset, and the stream's
// present size: the shape of Mesos' /files/read. A negative offset reads
// nothing and tells the size; an offset past the end too.
func Read(dir, stream string, offset, length int64) (data []byte, size int64, err error) {
	if stream != Stdout && stream != Stderr {
		return nil, 0, fmt.Errorf("log stream %q: want %s or %s", stream, Stdout, Stderr)
	}
	f, err := os.Open(filepath.Join(dir, stream))
	if err != nil {
		return nil, 0, fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read log: %w", err)
	}
	size = st.Size()
	if offset < 0 || offset >= size || length <= 0 {
		return nil, size, nil
	}
	data = make([]byte, min(length, maxRead, size-offset))
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, size, fmt.Errorf("read log: %w", err)
	}
	return data[:n], size, nil
}
