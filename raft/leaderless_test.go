package raft

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

type stillMachine struct{}

func (stillMachine) Apply(uint64, uint64, []byte) any { return nil }
func (stillMachine) Snapshot() (io.WriterTo, error)   { return nil, errors.New("not asked for") }
func (stillMachine) Restore(io.Reader) error          { return nil }
func tried(err error) func(context.Context, envelope) (Outcome, error) {
	return func(context.Context, envelope) (Outcome, error) { return Outcome{}, err }
}

func TestCallsEndWhenNobodyLeads(t *testing.T) {
	no := func() bool { return false }
	start := time.Time{}
	elected := func() bool { return time.Since(start) > 4*time.Second } // and a majority is missing
	cases := []struct {
		name string
		led  func() bool
		err  error
		want error
		wait time.Duration
	}{
		{"nobody leads", no, errRetry{cause: ErrNoLeader}, ErrNoLeader, leaderWait},
		{"nobody leads, and a former leader may have taken it", no, errRetry{cause: ErrNoLeader, unsure: true}, ErrUnknownOutcome, leaderWait},
		{"somebody leads late", elected, errRetry{cause: errors.New("busy")}, ErrNoLeader, 15 * time.Second},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				_, _, err := propose(ctx, NewReplica(stillMachine{}), []byte("x"), tc.led, tried(tc.err))
				if took := time.Since(start).Round(time.Second); !errors.Is(err, tc.want) || took != tc.wait {
					t.Errorf("a write ends after %v with %v", took, err)
				}
				start = time.Now()
				_, err = retryRead(t.Context(), no, func() (uint64, error) { return 0, tc.err })
				if took := time.Since(start).Round(time.Second); !errors.Is(err, ErrNoLeader) || took != leaderWait {
					t.Errorf("a read ends after %v with %v", took, err)
				}
			})
		})
	}
}
