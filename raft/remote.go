package raft

import (
	"context"
	"net/http"
	"sync/atomic"
)

// Remote proposes and reads through masters, for nodes that do not vote. Its replica is fed by package
// feed. Safe for concurrent use.
type Remote struct {
	replica *Replica
	masters func() []string
	rpc     *rpcClient
	reads   readBatch
	turn    atomic.Uint32
}

// NewRemote returns a Remote that asks the masters at the addresses (host:port) that masters returns,
// the leader first once it is known. client is wire.Dialer.Client. Close ends it.
func NewRemote(replica *Replica, client *http.Client, masters func() []string) *Remote {
	r := &Remote{replica: replica, masters: masters, rpc: newRPCClient(client)}
	r.reads.ctx = r.rpc.ctx
	return r
}

// Close ends requests under way.
func (r *Remote) Close() { r.rpc.close() }

// Replica returns what the feed applies to.
func (r *Remote) Replica() *Replica { return r.replica }

// Propose is Node.Propose.
func (r *Remote) Propose(ctx context.Context, data []byte) (uint64, any, error) {
	return propose(ctx, r.replica, data, r.knowsLeader, func(ctx context.Context, env envelope) (Outcome, error) {
		addr := r.pick()
		if addr == "" {
			return Outcome{}, errRetry{cause: ErrNoLeader}
		}
		o, err := r.rpc.propose(ctx, addr, env, codecOf(r.replica.sm))
		r.judge(addr, err)
		return o, err
	})
}

// ReadIndex is Node.ReadIndex.
func (r *Remote) ReadIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	return r.reads.do(ctx, func(ctx context.Context) (uint64, error) {
		return retryRead(ctx, r.knowsLeader, func() (uint64, error) {
			addr := r.pick()
			if addr == "" {
				return 0, errRetry{cause: ErrNoLeader}
			}
			index, err := r.rpc.readIndex(ctx, addr)
			r.judge(addr, err)
			return index, err
		})
	})
}

// WaitApplied blocks until the entry at index is applied here.
func (r *Remote) WaitApplied(ctx context.Context, index uint64) error {
	return r.replica.WaitApplied(ctx, index)
}

// Linearize blocks until a read of this node's replica is linearizable.
func (r *Remote) Linearize(ctx context.Context) error {
	index, err := r.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return r.WaitApplied(ctx, index)
}

// Leader returns the address of the leader as last heard, "" if unknown.
func (r *Remote) Leader() string {
	r.rpc.mu.Lock()
	defer r.rpc.mu.Unlock()
	return r.rpc.leader
}

func (r *Remote) knowsLeader() bool { return r.Leader() != "" }

// pick returns the leader if known, else one master after the other.
func (r *Remote) pick() string {
	if addr := r.Leader(); addr != "" {
		return addr
	}
	all := r.masters()
	if len(all) == 0 {
		return ""
	}
	return all[int(r.turn.Add(1))%len(all)]
}

// judge forgets a leader that failed.
func (r *Remote) judge(addr string, err error) {
	if err == nil {
		return
	}
	r.rpc.mu.Lock()
	defer r.rpc.mu.Unlock()
	if r.rpc.leader == addr {
		r.rpc.leader = ""
	}
}
