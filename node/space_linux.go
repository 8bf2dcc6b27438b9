package node

import (
	"os"
	"path/filepath"

	"appliance/node/doctor"
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

// startSpace is checkSpace for a node that has a reserve to give up.
func startSpace(dir string) error {
	if checkSpace(dir) == nil {
		return nil
	}
	if err := doctor.GiveUpReserve(dir); err != nil {
		return err
	}
	return checkSpace(dir)
}

// lockData makes this process the only node on a data directory. The lock
// ends with the process, however it ends.
func lockData(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, model.Errorf(model.CodeConflict, "another appliance runs on this machine").
			Because("it uses %s", dir).Try("see appliance status; to restart it: systemctl restart appliance")
	}
	return f, nil
}
