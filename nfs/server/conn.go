package server

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"appliance/nfs/proto"
	"appliance/nfs/rpc"
	"appliance/nfs/xdr"
)

const (
	// maxConcurrent bounds requests at work for one connection.
	maxConcurrent = 64
	writeTimeout  = 30 * time.Second // a peer that does not read is cut off
)

var errClosed = errors.New("volume closed")

// conn is one transport connection. Replies are written whole, in any order.
type conn struct {
	x    *export
	c    net.Conn
	peer string
	wmu  sync.Mutex
}

// serve answers requests until the connection ends.
func (x *export) serve(ctx context.Context, nc net.Conn, peer string) error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return errClosed
	}
	x.conns[nc] = true
	x.wg.Add(1)
	x.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer func() {
		stop()
		nc.Close()
		x.mu.Lock()
		delete(x.conns, nc)
		x.mu.Unlock()
		x.wg.Done()
	}()
	c := &conn{x: x, c: nc, peer: peer}
	var work sync.WaitGroup
	defer work.Wait()
	sem := make(chan struct{}, maxConcurrent)
	r := bufio.NewReaderSize(nc, 64<<10)
	for {
		rec, err := rpc.ReadRecord(r)
		if err != nil {
			return err
		}
		sem <- struct{}{}
		work.Add(1)
		go func() {
			defer work.Done()
			if c.handle(rec) != nil {
				nc.Close()
			}
			<-sem
		}()
	}
}

var replies = sync.Pool{New: func() any { return new(xdr.Encoder) }}

// handle answers one record. An error closes the connection: the peer is broken, or the volume has
// stopped and must not acknowledge.
func (c *conn) handle(rec []byte) error {
	d := xdr.NewDecoder(rec)
	call, err := rpc.DecodeCall(d)
	if err != nil {
		return err
	}
	e := replies.Get().(*xdr.Encoder)
	defer replies.Put(e)
	e.B = e.B[:0]
	rpc.StartRecord(e)
	switch {
	case call.Prog != rpc.Program:
		rpc.EncodeReply(e, call.XID, rpc.ProgUnavail)
	case call.Vers != rpc.Version:
		rpc.EncodeReply(e, call.XID, rpc.ProgMismatch)
	case call.Proc == proto.ProcNull:
		rpc.EncodeReply(e, call.XID, rpc.Success)
	case call.Proc == proto.ProcCompound:
		rpc.EncodeReply(e, call.XID, rpc.Success)
		if err := c.compound(call, d, e); err != nil {
			return err
		}
	default:
		rpc.EncodeReply(e, call.XID, rpc.ProcUnavail)
	}
	rpc.EndRecord(e)
	return c.send(e.B)
}

func (c *conn) send(b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.c.Write(b)
	return err
}
