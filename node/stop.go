package node

import (
	"context"
	"errors"
	"time"

	"appliance/raft"
)

const (
	// stopGrace bounds an orderly stop: a part that waits for a disk or a peer
	// must not hold up whoever supervises this process.
	stopGrace = 20 * time.Second
	// hungGrace bounds the stop because of a disk that hangs. Until the process
	// has ended its connections look alive to the others.
	hungGrace = 500 * time.Millisecond
)

// Start loads the configuration below data and runs the node until ctx ends.
// It also returns, with an error, if a disk that hangs keeps the node from
// starting or stopping; the process must end then.
func Start(ctx context.Context, data, run, version, level string) error {
	err := ended(ctx, stopGrace, func() error {
		c, err := Load(data, run)
		if err != nil {
			return err
		}
		if err := c.follow(); err != nil {
			return err
		}
		return Run(ctx, c, version, level)
	})
	noteStop(run, err, time.Now())
	return err
}

// ended runs fn and returns its error, or soon after ctx has ended, that it
// goes on. What is left of it ends with the process.
func ended(ctx context.Context, grace time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if errors.Is(context.Cause(ctx), raft.ErrDisk) {
		grace = hungGrace
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return errors.New("the node did not stop in time: something in it waits for a disk or a peer")
}
