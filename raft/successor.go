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
	// goneWait bounds the look whether the leader's port is closed. A machine that does not answer is
	// left to the heartbeats.
	goneWait = 200 * time.Millisecond
	goneLook = 20 * time.Millisecond // between two looks: a dying process closes its ports one by one
	goneMax  = 5                     // looks
	// succession is how much longer each further master waits than the one before it, so that they do
	// not ask for each other's vote at the same time. It covers an election with a slow disk.
	succession = 200 * time.Millisecond
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
// connections break at once, and its machine refuses new ones. Anything less certain than a refusal is
// left to the heartbeats.
func (n *Node) succeed(ctx context.Context) {
	for ctx.Err() == nil {
		select {
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
