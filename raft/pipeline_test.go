package raft

import (
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// narrow is a pipeline with room for one append, like that of the network: its sender waits until the
// answer to the one before was taken.
type narrow struct {
	sent   chan hraft.AppendFuture
	closed chan struct{}
}

func (n *narrow) AppendEntries(req *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) (hraft.AppendFuture, error) {
	f := &answered{req: req, resp: resp}
	select {
	case n.sent <- f:
		return f, nil
	case <-n.closed:
		return nil, hraft.ErrPipelineShutdown
	}
}

func (n *narrow) Consumer() <-chan hraft.AppendFuture { return n.sent }
func (n *narrow) Close() error                        { close(n.closed); return nil }

type answered struct {
	hraft.AppendFuture
	req  *hraft.AppendEntriesRequest
	resp *hraft.AppendEntriesResponse
}

func (a *answered) Request() *hraft.AppendEntriesRequest   { return a.req }
func (a *answered) Response() *hraft.AppendEntriesResponse { return a.resp }

// A master refuses an append while the next one is being sent: raft takes no answer after the refusal.
func TestRefusedAppendFreesItsSender(t *testing.T) {
	p := newPipeline(&narrow{make(chan hraft.AppendFuture), make(chan struct{})}, &transport{})
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := p.AppendEntries(&hraft.AppendEntriesRequest{}, &hraft.AppendEntriesResponse{}); err != nil {
				ended <- err
				return
			}
		}
	}()
	if f := <-p.Consumer(); f.Response().Success {
		t.Fatal("not refused")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the sender still waits")
	}
	p.Close()
}
