package raft

import (
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
	rank, err := n.rank(id)
	if err != nil || rank < 0 {
		return err
	}
	sleep(ctx, time.Duration(rank)*succession)
	if now, _ := n.Leader(); now != id || rank > 0 && !n.gone(ctx, addr) {
		return nil
	}
	n.log.Info("the leader's process is gone: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// succeedSilent asks for votes in its turn when most voters have not heard the leader for long. No vote is asked
// for by a node that is cut off itself.
func (n *Node) succeedSilent(ctx context.Context) error {
	id, addr := n.Leader()
	heard := n.raft.LastContact()
	if addr == "" || id == n.conf.ID || heard.IsZero() || time.Since(heard) < silence || n.trans.silent.Load() {
		return nil
	}
	rank, err := n.rank(id)
	if err != nil || rank < 0 || time.Since(heard) < silence+time.Duration(rank)*succession || !n.unheard(ctx, id) {
		return err
	}
	if now, _ := n.Leader(); now != id || n.raft.LastContact() != heard {
		return nil
	}
	n.log.Info("the leader has fallen silent: this node asks to lead", "leader", id)
	return n.trans.campaign(hraft.ServerID(n.conf.ID), hraft.ServerAddress(n.conf.Addr))
}

// unheard reports whether most voters, this one included, have not heard the leader for almost as long.
func (n *Node) unheard(ctx context.Context, leader string) bool {
	servers, err := n.Servers()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	answers := make(chan bool, len(servers))
	voters, agree := 0, 0
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		go func() {
			if s.ID == n.conf.ID || s.ID == leader {
				answers <- s.ID == n.conf.ID
				return
			}
			st, err := n.rpc.status(ctx, n.locate(s.ID, s.Addr))
			// One that stands for election already is refused by all that still believe in the leader.
			answers <- err == nil && st.ID == s.ID && st.State != hraft.Leader.String() && st.LastContact > silence*3/4
		}()
	}
	for range voters {
		if <-answers {
			agree++
		}
		if agree > voters/2 {
			return true
		}
	}
	return false
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

// rank is the place of this node among the voters that remain, -1 if it is none.
func (n *Node) rank(without string) (int, error) {
	servers, err := n.Servers()
	if err != nil {
		return 0, err
	}
	var ids []string
	for _, s := range servers {
		if s.Voter && s.ID != without {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return slices.Index(ids, n.conf.ID), nil
}

// campaign makes this node ask for votes at once, as after a transfer of leadership: the others, who
// still believe in the lost leader, are asked not to. Who has missed entries is refused as always.
func (t *transport) campaign(id hraft.ServerID, addr hraft.ServerAddress) error {
	return t.TimeoutNow(id, addr, &hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{
		ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(id), Addr: t.EncodePeer(id, addr),
	}}, &hraft.TimeoutNowResponse{})
}
