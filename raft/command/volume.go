package command

import (
	"appliance/node/model"
	"appliance/raft/state"
)

// PutVolume creates a volume; an existing one of that name is left alone and
// given back.
type PutVolume struct {
	Volume model.Volume `json:"volume"`
}

func (c *PutVolume) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if old := state.Volumes.Get(&tx.Snapshot, c.Volume.Name); old != nil {
		return old, nil
	}
	v := c.Volume
	v.Epoch = 1
	state.Volumes.Put(tx, index, &v)
	record(tx, index, v.CreatedAt, "volume", v.Name, "was created", map[string]string{"node": v.Primary})
	return v, nil
}

// MoveVolume changes who serves a volume or which copies are complete. It
// holds only if the epoch is still the one that the proposer saw, and only a
// node of the in-sync set may become primary.
type MoveVolume struct {
	Name    string   `json:"name"`
	Epoch   uint64   `json:"epoch"` // expected
	Primary string   `json:"primary"`
	InSync  []string `json:"inSync"`
	Members []string `json:"members"`
}

func (c *MoveVolume) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	old := state.Volumes.Get(&tx.Snapshot, c.Name)
	if old == nil {
		return nil, unknownVolume(c.Name)
	}
	if old.Epoch != c.Epoch {
		return nil, model.Errorf(model.CodeConflict, "volume %s has moved on", c.Name).Because("it is at epoch %d, not %d", old.Epoch, c.Epoch)
	}
	v := *old
	if c.Primary != old.Primary {
		if !contains(old.InSync, c.Primary) {
			return nil, model.Errorf(model.CodeConflict, "node %s may not serve volume %s", c.Primary, c.Name).Because("its copy is not complete")
		}
	}
	v.Epoch++
	v.Primary, v.InSync, v.Members = c.Primary, c.InSync, c.Members
	state.Volumes.Put(tx, index, &v)
	return v, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// DeleteVolume removes a volume that no live task mounts.
type DeleteVolume struct {
	Name string `json:"name"`
}

func (c *DeleteVolume) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for t := range state.Tasks.All(&tx.Snapshot) {
		rel := state.Releases.Get(&tx.Snapshot, model.ReleaseKey(t.App, t.Release))
		if !t.Live() || rel == nil {
			continue
		}
		for _, m := range rel.Spec.Volumes {
			if m.Name == c.Name {
				return nil, model.Errorf(model.CodeConflict, "volume %s is in use", c.Name).Because("task %s mounts it", t.ID).Try("stop the app first")
			}
		}
	}
	if !state.Volumes.Delete(tx, index, c.Name) {
		return nil, unknownVolume(c.Name)
	}
	return nil, nil
}

func unknownVolume(name string) *model.Error {
	return model.Errorf(model.CodeNotFound, "no volume is called %s", name)
}
