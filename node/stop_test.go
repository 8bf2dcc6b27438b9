package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appliance/raft"
)

func TestAPartThatHangsDoesNotHoldUpTheProcess(t *testing.T) {
	hung := fmt.Errorf("log: %w: a write has been hanging", raft.ErrDisk)
	for name, c := range map[string]struct {
		cause error // why the context ends; nil: it does not
		took  time.Duration
		want  string
	}{
		"asked to stop":  {context.Canceled, stopGrace, "did not stop in time"},
		"disk hangs":     {hung, hungGrace, "a write has been hanging"},
		"part failed":    {errors.New("agent: broken"), stopGrace, "agent: broken"},
		"ends by itself": {nil, time.Hour, "the end"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if c.cause != nil {
					cancel(c.cause)
				}
				begin := time.Now()
				err := ended(ctx, stopGrace, func() error { time.Sleep(time.Hour); return errors.New("the end") })
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %v", took)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}
