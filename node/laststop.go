package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"appliance/node/model"
)

// stoppedFile is in the run directory: while the node does not run, it says why.
const stoppedFile = "stopped.json"

// stopNote bounds the writing of it: the node may have ended because of a disk that hangs.
const stopNote = time.Second

// LastStop is how a node ended that should run.
type LastStop struct {
	At    time.Time    `json:"at"`
	Error *model.Error `json:"error"`
}

// ReadLastStop returns why the node of that run directory has stopped, nil if it did not fail.
func ReadLastStop(run string) *LastStop {
	var out LastStop
	raw, err := os.ReadFile(filepath.Join(run, stoppedFile))
	if err != nil || json.Unmarshal(raw, &out) != nil || out.Error == nil {
		return nil
	}
	return &out
}

// noteStop writes down why the node ended; nil says that it was asked to. What cannot be written is in the
// log all the same.
func noteStop(run string, err error, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), stopNote)
	defer cancel()
	_ = ended(ctx, 0, func() error {
		path := filepath.Join(run, stoppedFile)
		if err == nil {
			return os.Remove(path)
		}
		var e *model.Error
		if !errors.As(err, &e) {
			e = model.Errorf(model.CodeInternal, "it failed").Because("%v", err).Try("look at its log: journalctl -u appliance")
		}
		raw, err := json.Marshal(LastStop{now.UTC(), e})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(run, 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, raw, 0o600)
	})
}
