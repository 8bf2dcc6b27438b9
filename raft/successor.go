package raft

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
)

const (
	// goneWait bounds the look whether the leader's port is closed. A machine that does not answer
	// has fallen silent: see silence.
	goneWait = 200 * time.Millisecond
	goneLook = 20 * time.Millisecond // between two looks: a dying process closes its ports one by one
	goneMax  = 5                     // looks
	// succession is how much longer each further master waits than the one before it, so that they do
	// not ask for each other's vote at the same time. It covers an election with a slow disk.
	succession = 200 * time.Millisecond
	// silence is how long a leader is not heard until the others are asked whether they hear it. Left to the
	// heartbeats alone, masters that give up on it at about the same time split the vote, and wait once more.
	silence = electionTimeout
	// agreeWait bounds that question, agreeRest what comes after the answers of a majority, and silenceLook parts
	// the looks.
	agreeWait   = 150 * time.Millisecond
	agreeRest   = 30 * time.Millisecond
	silenceLook = 25 * time.Millisecond
)

// incoming tells when a connection that another master has opened breaks.
type incoming struct {
	net.Conn
	broken chan<- struct{} // buffered
}

func (c incoming) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	if err != nil {
		select {
		case c.broken <- struct{}{}:
		default:
		}
	}
	return k, err
}

// Accept implements net.Listener.
func (s stream) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return incoming{conn, s.broken}, nil
}

// succeed replaces a leader whose process is gone without waiting for its heartbeats to fail: its
// connections break at once, and its machine refuses new ones. One that only falls silent is replaced when
// most masters have not heard it for a while.
func (n *Node) succeed(ctx context.Context) {
	look := time.NewTicker(silenceLook)
	defer look.Stop()
	var stood election
	for ctx.Err() == nil {
		select {
		case <-look.C:
			if err := n.succeedSilent(ctx, stood.age(n.raft.CurrentTerm(), time.Now())); err != nil {
				n.log.Debug("election after the leader fell silent", "err", err)
			}
		case <-n.trans.broken:
			if err := n.succeedOnce(ctx); err != nil {
				n.log.Debug("election after the loss of the leader", "err", err)
			}
		case <-ctx.Done():
		}
	}
}

// election knows since when the term is what it is.
type election struct {
	term  uint64
	since time.Time
}

func (e *election) age(term uint64, now time.Time) time.Duration {
	if term != e.term {
		e.term, e.since = term, now
	}
	return now.Sub(e.since)
}

func (n *Node) succeedOnce(ctx context.Context) error {
	id, addr := n.Leader()
	if addr == "" || id == n.conf.ID || n.trans.silent.Load() || !n.gone(ctx, addr) {
		return nil
	}
	voters, err := n.voters()
	if err != nil || voters == nil {
		return err
	}
	turn := n.turn(n.ask(ctx, voters, id))
	sleep(ctx, turn)
	if now, _ := n.Leader(); now != id || turn > 0 && !n.gone(ctx, addr) {
		return nil
	}
	n.log.Info("the leader's process is gone: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// succeedSilent asks for votes in its turn when most voters have not heard the leader for long. No vote is asked
// for by a node that is cut off itself. TermAge is for how long the term is what it is.
func (n *Node) succeedSilent(ctx context.Context, termAge time.Duration) error {
	id, _ := n.Leader()
	heard := n.raft.LastContact()
	if n.raft.State() != hraft.Follower || heard.IsZero() || time.Since(heard) < silence || n.trans.silent.Load() {
		return nil
	}
	// Another stands for election: it may win, also with the vote of this node, which is just being stored. If it
	// was refused, for lack of an entry, the next has its turn.
	if id == "" && termAge < succession {
		return nil
	}
	voters, err := n.voters()
	if err != nil || voters == nil {
		return err
	}
	others := n.ask(ctx, voters, id)
	deaf := 1
	for _, st := range others {
		// One that stands for election already is refused by all that still believe in the leader.
		if st.State != hraft.Leader.String() && st.LastContact > silence*3/4 {
			deaf++
		}
	}
	if deaf <= len(voters)/2 || time.Since(heard) < silence+n.turn(others) {
		return nil
	}
	if now, _ := n.Leader(); now != id || n.raft.LastContact() != heard {
		return nil
	}
	n.log.Info("the leader has fallen silent: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// voters lists those who vote, this node included; nil if it has no vote itself.
func (n *Node) voters() ([]Server, error) {
	servers, err := n.Servers()
	if err != nil {
		return nil, err
	}
	servers = slices.DeleteFunc(servers, func(s Server) bool { return !s.Voter })
	if !slices.ContainsFunc(servers, func(s Server) bool { return s.ID == n.conf.ID }) {
		return nil, nil
	}
	return servers, nil
}

// ask asks the voters beside this node and the lost leader how they are. When a majority has answered, it waits
// for the others a little longer only: one that is gone, too, must not hold up the turns.
func (n *Node) ask(ctx context.Context, voters []Server, leader string) (answers []statusReply) {
	ctx, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	results := make(chan statusReply, len(voters))
	asked := 0
	for _, s := range voters {
		if s.ID == n.conf.ID || s.ID == leader {
			continue
		}
		asked++
		go func() {
			st, err := n.rpc.status(ctx, n.locate(s.ID, s.Addr))
			if err != nil || st.ID != s.ID {
				st = statusReply{}
			}
			results <- st
		}()
	}
	var enough <-chan time.Time
	for range asked {
		select {
		case st := <-results:
			if st.ID != "" {
				answers = append(answers, st)
			}
		case <-enough:
			return answers
		}
		if enough == nil && 1+len(answers) > len(voters)/2 {
			enough = time.After(agreeRest)
		}
	}
	return answers
}

// turn is how long this node lets others stand for election before it: those with a longer log, since they refuse
// their vote to it, and by their ids those with the same.
func (n *Node) turn(others []statusReply) time.Duration {
	own, before := n.Stats(), 0
	for _, o := range others {
		if o.before(statusReply{n.conf.ID, own}) {
			before++
		}
	}
	return time.Duration(before) * succession
}

// before tells who of two stands for election first. Nodes of older versions do not tell the term of their last
// entry and go by their ids alone.
func (s statusReply) before(o statusReply) bool {
	byID := cmp.Compare(s.ID, o.ID)
	if s.LastTerm == 0 || o.LastTerm == 0 {
		return byID < 0
	}
	return cmp.Or(cmp.Compare(o.LastTerm, s.LastTerm), cmp.Compare(o.Last, s.Last), byID) < 0
}

// gone reports whether nobody listens at addr any more.
func (n *Node) gone(ctx context.Context, addr string) bool {
	for range goneMax {
		dial, cancel := context.WithTimeout(ctx, goneWait)
		conn, err := n.conf.Dial(dial, addr)
		cancel()
		switch {
		case err == nil:
			conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		case errors.Is(err, context.DeadlineExceeded):
			return false
		}
		sleep(ctx, goneLook)
	}
	return false
}

// campaign makes this node ask for votes at once, as after a transfer of leadership: the others, who
// still believe in the lost leader, are asked not to. Who has missed entries is refused as always.
func (t *transport) campaign(id hraft.ServerID, addr hraft.ServerAddress) error {
	return t.TimeoutNow(id, addr, &hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{
		ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(id), Addr: t.EncodePeer(id, addr),
	}}, &hraft.TimeoutNowResponse{})
}
