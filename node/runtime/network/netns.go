package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// nsfsMagic is NSFS_MAGIC of linux/magic.h.
const nsfsMagic = 0x6e736673

func isNetns(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && uint64(st.Type) == nsfsMagic
}

// makeNetns makes a network namespace and keeps it by a bind mount, so that
// it outlives this process and the container's.
func makeNetns(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	errc := make(chan error, 1)
	go func() { errc <- bindNewNetns(path) }()
	if err := <-errc; err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	return nil
}

// bindNewNetns takes its thread into a new namespace and back.
func bindNewNetns(path string) error {
	const own = "/proc/thread-self/ns/net"
	goruntime.LockOSThread()
	home, err := os.Open(own)
	if err != nil {
		goruntime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		goruntime.UnlockOSThread()
		return err
	}
	err = unix.Mount(own, path, "", unix.MS_BIND, "")
	// A thread that cannot go back stays locked and dies with the goroutine
	// rather than serve others from the wrong network. It should not come to
	// that: children of this process may be tied to the thread's life.
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
		goruntime.UnlockOSThread()
	} else {
		err = errors.Join(err, back)
	}
	return err
}

func removeNetns(path string) error {
	// Detach lazily: a late process inside must not block the removal.
	for isNetns(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount network namespace: %w", err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}
