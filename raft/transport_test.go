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
