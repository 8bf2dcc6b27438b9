package node

import (
	"os"
	"path/filepath"
	"testing"

	"appliance/node/needs"

	"golang.org/x/sys/unix"
)

func TestLeaveTakesMountsOffBeforeItRemoves(t *testing.T) {
	needs.Root(t)
	shared, data := t.TempDir(), t.TempDir()
	precious := filepath.Join(shared, "notes.db")
	at := filepath.Join(data, "mounts", "a volume")
	for _, err := range []error{
		os.WriteFile(precious, []byte("everybody's"), 0o600), os.MkdirAll(at, 0o700),
		os.WriteFile(filepath.Join(data, "own"), nil, 0o600), unix.Mount(shared, at, "", unix.MS_BIND, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if err := removeData(data); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("the volume's file is gone: %v", err)
	}
	if left, _ := os.ReadDir(data); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLeaveRefusesWhileTheNodeRuns(t *testing.T) {
	data := t.TempDir()
	lock, err := lockData(data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := os.WriteFile(filepath.Join(data, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if Leave(data, t.TempDir()) == nil {
		t.Error("left under a running node")
	}
	if _, err := os.Stat(filepath.Join(data, "kept")); err != nil {
		t.Error(err)
	}
}
