package fault

import (
	"fmt"

	"appliance/node/lab/lyingfs"
)

// disk tells the lying disk how to be: as the fault says that began last.
func (m Machine) disk(live []Fault) error {
	var b lyingfs.Behaviour
	for _, f := range live {
		switch f.Kind {
		case FullDisk:
			b = lyingfs.Behaviour{Full: true, Until: f.Until}
		case HungDisk:
			b = lyingfs.Behaviour{Hung: true, Until: f.Until}
		case SlowDisk:
			b = lyingfs.Behaviour{Fsync: f.Delay, Write: f.Delay / 10, Until: f.Until}
		}
	}
	if m.Disk == "" {
		if b != (lyingfs.Behaviour{}) {
			return fmt.Errorf("this machine has an honest disk: start the lab with --lying-disks")
		}
		return nil
	}
	_, err := lyingfs.Set(m.Disk, b)
	return err
}

func (m Machine) diskHits() uint64 {
	if m.Disk == "" {
		return 0
	}
	hits, _ := lyingfs.Hits(m.Disk)
	return hits
}
