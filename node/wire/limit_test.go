package wire_test

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
)

// Machines without a certificate may take a bounded number of connections, and nodes do not notice.
func TestUnauthenticatedConnectionsAreBounded(t *testing.T) {
	c := wiretest.New(t)
	addr := serve(t, c, "m1")
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.Join}}
	var conns []*tls.Conn
	for range 80 {
		if conn, err := tls.Dial("tcp", addr, conf); err == nil {
			defer conn.Close()
			conns = append(conns, conn)
		}
	}
	// The server closes what is too many at once, but a busy machine may be
	// slow to tell.
	open := len(conns)
	for end := time.Now().Add(3 * time.Second); open > 64 && time.Now().Before(end); {
		conns = slices.DeleteFunc(conns, closed)
		open = len(conns)
	}
	if open == 0 || open > 64 {
		t.Errorf("%d join connections stay open", open)
	}
	d := dialer(t, c.Keychain(t, "a1", pki.Agent))
	if _, err := get(t, d.Client(), "https://"+addr+"/"); err != nil {
		t.Error(err)
	}
}

// closed reports whether the other side has closed the connection.
func closed(conn *tls.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	var ne net.Error
	return err != nil && !(errors.As(err, &ne) && ne.Timeout())
}
