package node

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"appliance/lb"

	"golang.org/x/sync/errgroup"
)

// front is the ingress with the VIP before it. They stop in an order that
// costs visitors nothing: first every answer asks its client to connect anew
// next time, then another node takes the address, and only then the port
// closes.
type front struct {
	n        *Node
	server   *lb.Server
	draining atomic.Bool
}

const (
	// drainTime lets the connections of busy clients end by themselves.
	drainTime = 500 * time.Millisecond
	// handOverTime bounds the wait for a successor.
	handOverTime = 2 * time.Second
)

// ServeHTTP is the proxy, which asks clients to leave while draining.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.draining.Load() && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	f.n.proxy.ServeHTTP(w, r)
}

// Run serves until ctx ends, and then leaves in order.
func (f *front) Run(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	group, both := errgroup.WithContext(detached)
	serving, stop := context.WithCancel(both)
	holding, handOver := context.WithCancel(both)
	handed := make(chan struct{})
	group.Go(func() error { return f.server.Run(serving) })
	group.Go(func() error {
		defer close(handed)
		if f.n.vip == nil {
			<-holding.Done()
			return nil
		}
		return f.n.runVIP(holding)
	})
	group.Go(func() error {
		defer stop()
		defer func() {
			handOver()
			select {
			case <-handed:
			case <-time.After(handOverTime):
			}
		}()
		select {
		case <-both.Done(): // the server broke
			return nil
		case <-ctx.Done():
		}
		if f.n.holdsVIP(0) {
			f.draining.Store(true)
			pause(both, drainTime)
		}
		return nil
	})
	return group.Wait()
}
