package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"

	"appliance/node/wire"
)

const (
	poolConns = 3
	// rpcTimeout bounds one append or vote. A peer that is silent longer is retried on a new connection.
	rpcTimeout = 2 * time.Second
)

// stream lends the connections of package wire to raft.
type stream struct {
	net.Listener
	addr   string
	dial   func(ctx context.Context, addr string) (net.Conn, error)
	peer   func(net.Conn) string // see Config.Peer
	broken chan<- struct{}
}

func (s stream) Addr() net.Addr { return textAddr(s.addr) }

func (s stream) Dial(addr hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, where, named := strings.Cut(string(addr), "@")
	if !named {
		return s.dial(ctx, string(addr))
	}
	conn, err := s.dial(ctx, where)
	if err != nil {
		return nil, err
	}
	if got := s.peerID(conn); got != "" && got != id {
		conn.Close()
		return nil, fmt.Errorf("node %s answers at %s, where %s was: it must not vote in its place", got, where, id)
	}
	return conn, nil
}

// peerID is who answers, "" if that is not known.
func (s stream) peerID(conn net.Conn) string {
	if s.peer != nil {
		return s.peer(conn)
	}
	peer, err := wire.PeerOf(conn)
	if err != nil {
		return ""
	}
	return peer.ID
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

// transport knows the open pipelines, so that they can be closed from outside: when a leader steps down,
// raft stops to take answers while it may still wait for room to send, for ever. That leaks a goroutine
// that sends heartbeats of an old term, and a later Shutdown never returns.
type transport struct {
	*hraft.NetworkTransport
	broken <-chan struct{} // a connection that another master has opened broke
	mu     sync.Mutex
	open   map[*pipeline]bool

	silent atomic.Bool            // ask for no votes: others should stand for election first
	where  func(id string) string // see Config.Locate

	requests chan hraft.RPC // what receive hands to raft
	done     chan struct{}  // closed by Close
	once     sync.Once
	wg       sync.WaitGroup
}

// Consumer implements hraft.Transport.
func (t *transport) Consumer() <-chan hraft.RPC { return t.requests }

// Close implements hraft.WithClose. It may be called twice.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.done) })
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// RequestPreVote implements hraft.WithPreVote. A silent node counts itself as refused, so it stays in its
// term, knows no leader, and is free to vote for those who ask.
func (t *transport) RequestPreVote(id hraft.ServerID, target hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse) error {
	if t.silent.Load() {
		resp.Term = args.Term
		return nil
	}
	return anew(func() error { return t.NetworkTransport.RequestPreVote(id, t.at(id, target), args, resp) })
}

// locate is where a server is now, as far as anybody knows better than the log.
func (t *transport) locate(id hraft.ServerID, target hraft.ServerAddress) hraft.ServerAddress {
	if t.where != nil {
		if addr := t.where(string(id)); addr != "" {
			return hraft.ServerAddress(addr)
		}
	}
	return target
}

// at is where a server is and who must answer there, for stream.Dial. hashicorp/raft looks at addresses only: a
// master that lost its disk, at its old address under a new identity, would vote and count as its former self.
func (t *transport) at(id hraft.ServerID, target hraft.ServerAddress) hraft.ServerAddress {
	return hraft.ServerAddress(id) + "@" + t.locate(id, target)
}

// The methods below ask where a server is now: one that has changed its address is reached before the
// configuration in the log says so, which only a leader can change.

// AppendEntries implements hraft.Transport.
func (t *transport) AppendEntries(id hraft.ServerID, target hraft.ServerAddress, args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, t.at(id, target), args, resp)
}

// RequestVote implements hraft.Transport.
func (t *transport) RequestVote(id hraft.ServerID, target hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse) error {
	return anew(func() error { return t.NetworkTransport.RequestVote(id, t.at(id, target), args, resp) })
}

// InstallSnapshot implements hraft.Transport.
func (t *transport) InstallSnapshot(id hraft.ServerID, target hraft.ServerAddress, args *hraft.InstallSnapshotRequest, resp *hraft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, t.at(id, target), args, resp, data)
}

// TimeoutNow implements hraft.Transport.
func (t *transport) TimeoutNow(id hraft.ServerID, target hraft.ServerAddress, args *hraft.TimeoutNowRequest, resp *hraft.TimeoutNowResponse) error {
	return anew(func() error { return t.NetworkTransport.TimeoutNow(id, t.at(id, target), args, resp) })
}

// anew asks again when a kept connection broke since it was used: the other was restarted. raft asks for a vote
// once in an election, and a candidate that one voter has not heard of may need another one. To be asked twice
// does no harm.
func anew(ask func() error) error {
	err := ask()
	for range poolConns {
		var inner interface{ Cause() error } // of the codec
		if errors.As(err, &inner) {
			err = inner.Cause()
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			break
		}
		err = ask()
	}
	return err
}

// AppendEntriesPipeline implements hraft.Transport.
func (t *transport) AppendEntriesPipeline(id hraft.ServerID, target hraft.ServerAddress) (hraft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, t.at(id, target))
	if err != nil {
		return nil, err
	}
	own := newPipeline(p, t)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[own] = true
	return own, nil
}

// closePipelines closes what is open. A leader opens new ones by itself.
func (t *transport) closePipelines() {
	t.mu.Lock()
	open := slices.Collect(maps.Keys(t.open))
	t.mu.Unlock()
	for _, p := range open {
		p.Close()
	}
}

func newTransport(s stream, log hclog.Logger) *transport {
	broken := make(chan struct{}, 1)
	s.broken = broken
	return &transport{open: map[*pipeline]bool{}, broken: broken, requests: make(chan hraft.RPC), done: make(chan struct{}), NetworkTransport: hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		Stream:                  s,
		MaxPool:                 poolConns,
		MaxRPCsInFlight:         2, // more ruins latency under load: hashicorp/raft pull request 541
		Timeout:                 rpcTimeout,
		Logger:                  log.Named("transport"),
		MsgpackUseNewTimeFormat: true,
	})}
}
