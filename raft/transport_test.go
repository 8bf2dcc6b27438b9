package raft

import (
	"context"
	"net"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

// A peer that takes requests and never answers fills the pipeline; raft then waits for room.
func TestClosedPipelineFreesItsSender(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	dial := func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		go func() {
			for b := make([]byte, 4096); ; {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		return ours, nil
	}
	trans := newTransport(stream{Listener: ln, addr: addr, dial: dial}, hclog.NewNullLogger())
	t.Cleanup(func() { trans.Close() })
	p, err := trans.AppendEntriesPipeline("peer", "peer:1")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := p.AppendEntries(&hraft.AppendEntriesRequest{}, &hraft.AppendEntriesResponse{}); err != nil {
				ended <- err
				return
			}
		}
	}()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		trans.closePipelines()
		select {
		case <-ended:
			return
		default:
		}
	}
	t.Fatal("the sender still waits")
}

// A master that was restarted hears of the next election, though all connections to its former self are broken.
func TestVotesAreAskedForOnNewConnections(t *testing.T) {
	serve := func(addr string, together int) (*transport, string) {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		trans := newTransport(stream{Listener: ln, addr: ln.Addr().String(), dial: dial, peer: func(net.Conn) string { return "" }}, hclog.NewNullLogger())
		t.Cleanup(func() { trans.Close() })
		go func() {
			var waiting []hraft.RPC
			for {
				select {
				case rpc := <-trans.NetworkTransport.Consumer():
					if waiting = append(waiting, rpc); len(waiting) == together {
						for _, w := range waiting {
							w.Respond(&hraft.RequestVoteResponse{Granted: true}, nil)
						}
						waiting = nil
					}
				case <-t.Context().Done():
					return
				}
			}
		}()
		return trans, ln.Addr().String()
	}
	candidate, _ := serve("127.0.0.1:0", 1)
	voter, addr := serve("127.0.0.1:0", poolConns)
	vote := func() error {
		var resp hraft.RequestVoteResponse
		return candidate.RequestVote("voter", hraft.ServerAddress(addr), &hraft.RequestVoteRequest{Term: 7}, &resp)
	}
	errs := make(chan error, poolConns)
	for range poolConns { // as many connections as are kept
		go func() { errs <- vote() }()
	}
	for range poolConns {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	voter.Close()
	serve(addr, 1)
	if err := vote(); err != nil {
		t.Errorf("the new process was not asked: %v", err)
	}
}
