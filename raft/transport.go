package raft

import (
	"context"
	"net"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

const (
	poolConns = 3
	// rpcTimeout bounds one append or vote. A peer that is silent longer is retried on a new connection.
	rpcTimeout = 2 * time.Second
)

// stream lends the connections of package wire to raft.
type stream struct {
	net.Listener
	addr string
	dial func(ctx context.Context, addr string) (net.Conn, error)
}

func (s stream) Addr() net.Addr { return textAddr(s.addr) }

func (s stream) Dial(addr hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(addr))
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

func newTransport(s stream, log hclog.Logger) *hraft.NetworkTransport {
	return hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		Stream:                  s,
		MaxPool:                 poolConns,
		MaxRPCsInFlight:         2, // more ruins latency under load: hashicorp/raft pull request 541
		Timeout:                 rpcTimeout,
		Logger:                  log.Named("transport"),
		MsgpackUseNewTimeFormat: true,
	})
}
