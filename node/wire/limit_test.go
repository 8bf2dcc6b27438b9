package wire_test

import (
	"crypto/tls"
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
	open := 0
	for range 80 {
		conn, err := tls.Dial("tcp", addr, conf)
		if err != nil {
			continue
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			if ne, ok := err.(interface{ Timeout() bool }); ok && ne.Timeout() {
				open++
			}
		}
	}
	if open == 0 || open > 64 {
		t.Errorf("%d join connections stay open", open)
	}
	d := dialer(t, c.Keychain(t, "a1", pki.Agent))
	if _, err := get(t, d.Client(), "https://"+addr+"/"); err != nil {
		t.Error(err)
	}
}
