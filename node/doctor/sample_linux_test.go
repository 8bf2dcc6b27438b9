package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheMachineIsRead(t *testing.T) {
	d, err := ReadDisk(t.TempDir())
	if err != nil || d.Size == 0 || d.Free > d.Size {
		t.Errorf("%+v %v", d, err)
	}
	f, err := ReadFiles()
	if err != nil || f.Open < 3 || f.Limit < f.Open {
		t.Errorf("%+v %v", f, err)
	}
	if m := ReadMemory(); m.RSS < mib || m.Total < m.Available || m.Available == 0 {
		t.Errorf("%+v", m)
	}
}

func TestReserveFileTakesRealRoom(t *testing.T) {
	dir := t.TempDir()
	d := Disk{Dir: dir, Free: 1 << 30, ReserveWanted: 8 * mib}
	if KeepReserve(&d) || d.Reserve != 8*mib || d.ReserveErr != "" {
		t.Fatalf("%+v", d)
	}
	info, err := os.Stat(filepath.Join(dir, ReserveFile))
	if err != nil || info.Size() != 8*mib || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	d.Free = 0
	if !KeepReserve(&d) || d.Reserve != 0 || d.Free != 8*mib {
		t.Errorf("%+v", d)
	}
	if _, err := os.Stat(filepath.Join(dir, ReserveFile)); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
	if err := GiveUpReserve(dir); err != nil {
		t.Errorf("giving up twice: %v", err)
	}
}
