// Package trim gives memory back that a node needed only to start.
//
// Half of an idle node's resident memory are pages of its own program file:
// start-up code, tables of the linked engines, the embedded runtime that was
// unpacked. The kernel would drop them under pressure; a small machine is
// better off without them at once, and what is needed again comes back from
// the page cache.
package trim

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settled is when a node has started and its first tasks run.
const settled = 20 * time.Second

// Run trims once, when the node has settled, and waits for ctx to end.
func Run(ctx context.Context) error {
	t := time.NewTimer(settled)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-t.C:
	}
	err := Now()
	<-ctx.Done()
	return err
}

// Now gives free heap and the pages of the program file back to the kernel.
func Now() error {
	debug.FreeOSMemory()
	areas, err := programAreas()
	if err != nil {
		return err
	}
	for _, a := range areas {
		// Private, read-only and backed by the file: dropping the pages loses
		// nothing, the next access reads them again (madvise(2)).
		if err := unix.Madvise(a, unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("give pages of the program back: %w", err)
		}
	}
	return nil
}

// programAreas are the read-only mappings of this process's own executable
// (proc(5), /proc/pid/maps).
func programAreas() ([][]byte, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out [][]byte
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != self || strings.Contains(fields[1], "w") {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil || to <= from {
			continue
		}
		out = append(out, unsafe.Slice((*byte)(addr(from)), to-from))
	}
	return out, lines.Err()
}

// addr makes a pointer of an address that the kernel has told. It is not of
// the Go heap, so the collector does not move it.
func addr(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }
