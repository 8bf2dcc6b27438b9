package agent

import (
	"encoding/json"
	"fmt"
	"time"

	"appliance/node/model"

	"go.etcd.io/bbolt"
)

// checkpoint is what a worker needs to go on after a restart. Spec has the
// image pinned.
type checkpoint struct {
	Task   model.Task       `json:"task"`
	Spec   model.AppSpec    `json:"spec"`
	Status model.TaskStatus `json:"status"`
}

var bucket = []byte("tasks")

// checkpoints is the agent's durable memory. Every save is on disk when it
// returns.
type checkpoints struct{ db *bbolt.DB }

// lockWait is how long an agent waits for a predecessor that still ends.
const lockWait = 5 * time.Second

func openCheckpoints(path string) (*checkpoints, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return nil, fmt.Errorf("open task checkpoints %s: %w (is another agent running on this data directory?)", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	return &checkpoints{db}, err
}

func (c *checkpoints) close() error { return c.db.Close() }

func (c *checkpoints) save(cp checkpoint) error {
	raw, err := json.Marshal(cp)
	if err != nil {
		return err
	}
	return c.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(cp.Task.ID), raw) })
}

func (c *checkpoints) remove(tasks ...string) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		for _, task := range tasks {
			if err := tx.Bucket(bucket).Delete([]byte(task)); err != nil {
				return err
			}
		}
		return nil
	})
}

// all returns every checkpoint; one that cannot be read is an error, because
// its container would otherwise run without an owner.
func (c *checkpoints) all() ([]checkpoint, error) {
	var out []checkpoint
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			var cp checkpoint
			if err := json.Unmarshal(v, &cp); err != nil {
				return fmt.Errorf("checkpoint of task %s: %w", k, err)
			}
			out = append(out, cp)
			return nil
		})
	})
	return out, err
}
