package raft

import (
	"sync"

	hraft "github.com/hashicorp/raft"
)

// pipeline is a stream of appends to one master. It is closed after the first append that is refused:
// raft stops to take answers then while it may still wait for room to send, for ever, and the master that
// refused, because its disk was full for a moment, would get nothing more from this leader.
type pipeline struct {
	hraft.AppendPipeline
	owner  *transport
	done   chan hraft.AppendFuture
	closed chan struct{}
	once   sync.Once
}

func newPipeline(inner hraft.AppendPipeline, owner *transport) *pipeline {
	p := &pipeline{AppendPipeline: inner, owner: owner, done: make(chan hraft.AppendFuture), closed: make(chan struct{})}
	go p.pass()
	return p
}

// pass hands answers on until the pipeline is closed.
func (p *pipeline) pass() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			select {
			case p.done <- f:
			case <-p.closed:
				return
			}
			if r := f.Response(); !r.Success || r.Term > f.Request().Term {
				p.Close()
			}
		case <-p.closed:
			return
		}
	}
}

// Consumer implements hraft.AppendPipeline.
func (p *pipeline) Consumer() <-chan hraft.AppendFuture { return p.done }

// Close implements hraft.AppendPipeline. It may be called twice.
func (p *pipeline) Close() (err error) {
	p.once.Do(func() {
		close(p.closed)
		p.owner.mu.Lock()
		delete(p.owner.open, p)
		p.owner.mu.Unlock()
		err = p.AppendPipeline.Close()
	})
	return err
}
