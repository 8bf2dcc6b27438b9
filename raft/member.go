package raft

import (
	"context"
	"errors"
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Server is a member of the log.
type Server struct {
	ID    string `json:"id"`
	Addr  string `json:"addr"`
	Voter bool   `json:"voter"`
}

const (
	memberTimeout = 10 * time.Second
	// catchUpSlack is how many entries a member may lack that counts as caught up; they arrive in one append.
	catchUpSlack = maxAppend
)

// Servers returns the current members, from this node's view.
func (n *Node) Servers() ([]Server, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, err
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == hraft.Voter})
	}
	return out, nil
}

// memberChange is what a master asks of the leader: only to be readmitted. All else is the leader's own business
// (package autopilot).
type memberChange struct {
	Op   string `json:"op"`
	ID   string `json:"id"`
	Addr string `json:"addr,omitempty"`
}

const opReadmit = "readmit"

// retryChange repeats a change, which is idempotent, until ctx ends.
func retryChange(ctx context.Context, once func() error) error {
	for {
		err := once()
		var again errRetry
		if err == nil || !errors.As(err, &again) {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("change the masters: %w", again.cause)
		}
	}
}

// changeHere does what another master asks, if this one leads.
func (n *Node) changeHere(ctx context.Context, c memberChange) error {
	switch {
	case !n.IsLeader():
		return errRetry{cause: ErrNoLeader}
	case c.ID == "" || c.Addr == "":
		return errors.New("change the masters: id or address is empty")
	case c.Op != opReadmit:
		return fmt.Errorf("change the masters: operation %q is not known: run the same version on all masters", c.Op)
	}
	return n.readmitHere(ctx, c.ID, c.Addr)
}

func (n *Node) member(ctx context.Context, f hraft.Future) error {
	err := wait(ctx, f)
	if err == nil {
		return nil
	}
	if errors.Is(err, hraft.ErrRaftShutdown) {
		return ErrClosed
	}
	return errRetry{cause: err}
}

// TransferLeadership hands leadership to the given voter, which must be alive, or to whoever is most up
// to date if id is empty. For rare, planned moves only: an interrupted transfer can wedge a leader
// (hashicorp/raft issue 696), which the watchdog in Propose then ends.
func (n *Node) TransferLeadership(ctx context.Context, id, addr string) error {
	if id == "" {
		return wait(ctx, n.raft.LeadershipTransfer())
	}
	return wait(ctx, n.raft.LeadershipTransferToServer(hraft.ServerID(id), hraft.ServerAddress(addr)))
}

// handOver is the part of a graceful stop that keeps the cluster writable.
func (n *Node) handOver() {
	if n.ctx.Err() != nil || !n.IsLeader() {
		return
	}
	voters := 0
	servers, err := n.Servers()
	for _, s := range servers {
		if s.Voter {
			voters++
		}
	}
	if err != nil || voters < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, 4*electionTimeout)
	defer cancel()
	to, err := n.successor(ctx)
	if errors.Is(err, errDeposed) {
		return
	}
	if err != nil {
		n.log.Debug("no successor stands out", "err", err) // raft chooses one
	}
	if err := n.TransferLeadership(ctx, to.ID, to.Addr); err != nil {
		n.log.Warn("leadership not handed over: the others elect after a pause", "err", err)
	}
}
