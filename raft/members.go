package raft

import (
	"context"
	"sync"

	hraft "github.com/hashicorp/raft"
)

// Member is a server as the leader sees it.
type Member struct {
	Server
	Answers  bool // within a second; true of this node
	CaughtUp bool // it lacks no more than one append
	Unfit    []string
}

// Members asks all servers how they are. Only a leader can judge who has caught up.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	servers, err := n.Servers()
	if err != nil {
		return nil, err
	}
	commit := n.raft.CommitIndex()
	out := make([]Member, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		out[i].Server = s
		if s.ID == n.conf.ID {
			out[i].Answers, out[i].CaughtUp, out[i].Unfit = true, true, n.fitness.list()
			continue
		}
		wg.Go(func() {
			st, err := n.rpc.status(ctx, n.locate(s.ID, s.Addr))
			if err != nil || st.ID != s.ID {
				return // silent, or another machine is at its address
			}
			out[i].Answers, out[i].Unfit = true, st.Unfit
			out[i].CaughtUp = st.Applied > 0 && st.Applied+catchUpSlack >= commit
		})
	}
	wg.Wait()
	return out, nil
}

// AddStandby makes a node follow the log without a vote. Of a server that is known, voter or not, only
// the address is changed. It works on the leader only, like Promote, Demote and RemoveServer; each may be
// repeated.
func (n *Node) AddStandby(ctx context.Context, id, addr string) error {
	return n.member(ctx, n.raft.AddNonvoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout))
}

// Promote gives a server a vote. It must have caught up: until then it counts for a majority that it
// cannot support.
func (n *Node) Promote(ctx context.Context, id, addr string) error {
	return n.member(ctx, n.raft.AddVoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout))
}

// RemoveServer takes a server out of the log. Removing an unknown id is no error.
func (n *Node) RemoveServer(ctx context.Context, id string) error {
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

// Demote takes a server's vote; it goes on to follow.
func (n *Node) Demote(ctx context.Context, id string) error {
	return n.member(ctx, n.raft.DemoteVoter(hraft.ServerID(id), 0, memberTimeout))
}

// locate is where a server is now.
func (n *Node) locate(id, addr string) string {
	return string(n.trans.locate(hraft.ServerID(id), hraft.ServerAddress(addr)))
}
