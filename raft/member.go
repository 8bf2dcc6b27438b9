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
	// catchUpSlack is how many entries a new member may lack when it becomes a voter; they arrive in
	// one append.
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

// EnsureVoter makes the node at addr a voter, whoever leads. A new one first follows without a vote until
// it has caught up, so that it never counts for a majority it can not support; it must be running. A
// known id with a new address is updated; another id at the same address is removed, since that machine
// was rebuilt. It is idempotent.
func (n *Node) EnsureVoter(ctx context.Context, id, addr string) error {
	return n.change(ctx, memberChange{Op: "ensure", ID: id, Addr: addr})
}

// RemoveServer takes a node out of the log, whoever leads. Removing an unknown id is no error.
func (n *Node) RemoveServer(ctx context.Context, id string) error {
	return n.change(ctx, memberChange{Op: "remove", ID: id})
}

// memberChange travels to the leader.
type memberChange struct {
	Op   string `json:"op"`
	ID   string `json:"id"`
	Addr string `json:"addr,omitempty"`
}

func (n *Node) change(ctx context.Context, c memberChange) error {
	ctx, cancel := limit(ctx)
	defer cancel()
	return retryChange(ctx, func() error { return n.changeOnce(ctx, c, true) })
}

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

func (n *Node) changeOnce(ctx context.Context, c memberChange, forward bool) error {
	if n.IsLeader() {
		return n.changeHere(ctx, c)
	}
	id, addr := n.Leader()
	if !forward || addr == "" || id == n.conf.ID {
		return errRetry{cause: ErrNoLeader}
	}
	return n.rpc.member(ctx, addr, c)
}

func (n *Node) changeHere(ctx context.Context, c memberChange) error {
	switch {
	case c.ID == "" || c.Op != "remove" && c.Addr == "":
		return fmt.Errorf("change the masters: id or address is empty")
	case c.Op == "ensure":
		return n.ensureHere(ctx, c.ID, c.Addr)
	case c.Op == "readmit":
		return n.readmitHere(ctx, c.ID, c.Addr)
	case c.Op == "remove":
		return n.removeHere(ctx, c.ID)
	}
	return fmt.Errorf("change the masters: operation %q is not known: run the same version on all masters", c.Op)
}

func (n *Node) ensureHere(ctx context.Context, id, addr string) error {
	servers, err := n.Servers()
	if err != nil {
		return errRetry{cause: err}
	}
	var known *Server
	for _, s := range servers {
		switch {
		case s.ID == id:
			known = &s
		case s.Addr == addr:
			if err := n.removeHere(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	if known != nil && known.Voter {
		if known.Addr == addr {
			return nil
		}
		return n.member(ctx, n.raft.AddVoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout))
	}
	if known == nil || known.Addr != addr {
		if err := n.member(ctx, n.raft.AddNonvoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout)); err != nil {
			return err
		}
	}
	if err := n.awaitCaughtUp(ctx, id, addr); err != nil {
		return err
	}
	return n.member(ctx, n.raft.AddVoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout))
}

func (n *Node) awaitCaughtUp(ctx context.Context, id, addr string) error {
	var last error
	for ctx.Err() == nil {
		if !n.IsLeader() {
			return errRetry{cause: ErrNoLeader}
		}
		st, err := n.rpc.status(ctx, addr)
		switch {
		case err != nil:
			last = err
		case st.ID != id:
			return fmt.Errorf("add master: node %s answers at %s, not %s: give its own address", st.ID, addr, id)
		case st.Applied+catchUpSlack >= n.raft.CommitIndex() && st.Applied > 0:
			return nil
		default:
			last = fmt.Errorf("it is at index %d of %d", st.Applied, n.raft.CommitIndex())
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("add master %s at %s: it did not catch up in time: %w: it stays a member without a vote; check that it runs and is reachable, then join it again", id, addr, last)
}

func (n *Node) removeHere(ctx context.Context, id string) error {
	servers, err := n.Servers()
	if err != nil {
		return errRetry{cause: err}
	}
	for _, s := range servers {
		if s.ID == id {
			return n.member(ctx, n.raft.RemoveServer(hraft.ServerID(id), 0, memberTimeout))
		}
	}
	return nil
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
