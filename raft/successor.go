package raft

import (
	"cmp"
	"context"
	"errors"
	"net"
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
	// agreeWait bounds that question, and silenceLook parts the looks.
	agreeWait   = 150 * time.Millisecond
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
	for ctx.Err() == nil {
		select {
		case <-look.C:
			if err := n.succeedSilent(ctx); err != nil {
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

func (n *Node) succeedOnce(ctx context.Context) error {
	id, addr := n.Leader()
	if addr == "" || id == n.conf.ID || n.trans.silent.Load() || !n.gone(ctx, addr) {
		return nil
	}
	others, _, err := n.others(ctx, id)
	if err != nil {
		return err
	}
	turn := n.turn(others)
	sleep(ctx, turn)
	// Nobody leads yet if the one before was refused: it may have missed an entry that was on its way.
	if now, _ := n.Leader(); now != id && now != "" || turn > 0 && !n.gone(ctx, addr) {
		return nil
	}
	n.log.Info("the leader's process is gone: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// succeedSilent asks for votes in its turn when most voters have not heard the leader for long. No vote is asked
// for by a node that is cut off itself.
func (n *Node) succeedSilent(ctx context.Context) error {
	id, _ := n.Leader() // "" if one was refused that stood already: it lacks an entry
	heard := n.raft.LastContact()
	if n.raft.State() != hraft.Follower || heard.IsZero() || time.Since(heard) < silence || n.trans.silent.Load() {
		return nil
	}
	others, voters, err := n.others(ctx, id)
	if err != nil {
		return err
	}
	deaf := 1
	for _, st := range others {
		// One that stands for election already is refused by all that still believe in the leader.
		if st.State != hraft.Leader.String() && st.LastContact > silence*3/4 {
			deaf++
		}
	}
	if deaf <= voters/2 || time.Since(heard) < silence+n.turn(others) {
		return nil
	}
	if now, _ := n.Leader(); now != id || n.raft.LastContact() != heard {
		return nil
	}
	n.log.Info("the leader has fallen silent: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// others asks the voters beside this node and the lost leader how they are, and returns the answers that come
// in time and the number of all voters. A node that has no vote gets an error.
func (n *Node) others(ctx context.Context, leader string) (answers []statusReply, voters int, err error) {
	servers, err := n.Servers()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	results := make(chan statusReply, len(servers))
	asked, own := 0, false
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if own = own || s.ID == n.conf.ID; s.ID == n.conf.ID || s.ID == leader {
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
	for range asked {
		if st := <-results; st.ID != "" {
			answers = append(answers, st)
		}
	}
	if !own {
		return nil, 0, errors.New("this node has no vote")
	}
	return answers, voters, nil
}

// turn is how long this node lets others stand for election before it: those with a longer log, since they refuse
// their vote to it, and by their ids those with the same.
func (n *Node) turn(others []statusReply) time.Duration {
	own, before := n.Stats(), 0
	for _, o := range others {
		if cmp.Or(cmp.Compare(own.LastTerm, o.LastTerm), cmp.Compare(own.Last, o.Last), cmp.Compare(o.ID, n.conf.ID)) < 0 {
			before++
		}
	}
	return time.Duration(before) * succession
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
