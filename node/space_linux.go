package node

import (
	"appliance/node/model"

	"golang.org/x/sys/unix"
)

// checkSpace refuses a data directory on a full disk.
func checkSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free < minFree {
		return model.Errorf(model.CodeExhausted, "the disk of %s is full", dir).
			Because("%d MiB are free, %d are needed", free>>20, minFree>>20).Try("free some space and start again")
	}
	return nil
}
