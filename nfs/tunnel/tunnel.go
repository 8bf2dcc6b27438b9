// Package tunnel is the agent's side of volume traffic: local listeners whose connections are
// carried to the node that serves the volume.
package tunnel

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"appliance/nfs/rpc"
)

const (
	helloTimeout = 10 * time.Second
	dialTimeout  = 10 * time.Second
	// maxConns bounds the connections of one listener: one per mount, and room for reconnects.
	maxConns = 1024
)

// Tunnel forwards connections. Dial connects to the node that serves a volume at present, over the
// cluster's mTLS (ALPN appliance/nfs); no byte has been sent on the connection it returns.
type Tunnel struct {
	Dial func(ctx context.Context, volume string) (net.Conn, error)
	Log  *slog.Logger
}

// Serve forwards connections that start with a hello line, such as those of FUSE clients, until ctx
// is done. It closes l.
func (t *Tunnel) Serve(ctx context.Context, l net.Listener) error {
	return t.accept(ctx, l, func(ctx context.Context, c net.Conn) {
		c.SetDeadline(time.Now().Add(helloTimeout))
		volume, err := rpc.ReadHello(c)
		if err != nil {
			return
		}
		up, err := t.dial(ctx, volume)
		if err != nil {
			return // not "refused": the client tries again
		}
		c.SetDeadline(time.Time{})
		splice(ctx, c, up) // the server's reply to the hello comes through
	})
}

func (t *Tunnel) dial(ctx context.Context, volume string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	up, err := t.Dial(ctx, volume)
	if err != nil {
		return nil, err
	}
	if err := rpc.WriteHello(up, volume); err != nil {
		up.Close()
		return nil, err
	}
	return up, nil
}

func (t *Tunnel) accept(ctx context.Context, l net.Listener, handle func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	sem := make(chan struct{}, maxConns)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return err
		}
		sem <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			handle(ctx, c)
			<-sem
		}()
	}
}

// splice copies both ways until one side ends or ctx is done; NFS has no half-closed connections.
func splice(ctx context.Context, a, b net.Conn) {
	end := sync.OnceFunc(func() {
		a.Close()
		b.Close()
	})
	stop := context.AfterFunc(ctx, end)
	defer stop()
	done := make(chan struct{})
	go func() {
		io.Copy(a, b)
		end()
		close(done)
	}()
	io.Copy(b, a)
	end()
	<-done
}
