package client

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// Close may come while a connection is dialled, and does not know of it yet.
func TestCloseWhileDialling(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	begun, over := make(chan struct{}), make(chan struct{})
	c := New(Config{Owner: "a", Dial: func(ctx context.Context) (net.Conn, error) {
		close(begun)
		<-over // the answer to the last step of the handshake was on its way
		return ours, nil
	}})
	asked := make(chan error, 1)
	go func() { _, err := c.live(Interrupt{}); asked <- err }()
	<-begun
	c.Close()
	close(over)
	if err := <-asked; err != ErrClosed {
		t.Errorf("a request got %v, not ErrClosed", err)
	}
	theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is open: %v", err)
	}
}
