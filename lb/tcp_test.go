package lb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTCPRoute(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
				io.WriteString(c, "bye") // after the client's half is closed
			}()
		}
	}()
	dead, _ := net.Listen("tcp", "127.0.0.1:0")
	dead.Close()
	in := startIngress(t, Server{})
	in.route(t, Options{}, Backend{ID: "dead", Addr: dead.Addr().String()}, Backend{ID: "echo", Addr: echo.Addr().String()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := TCPServer{Proxy: in.Proxy, Listener: l, Service: "svc", ProxyProtocol: true}
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 4 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "hello\n")
		br := bufio.NewReader(c)
		head, _ := br.ReadString('\n')
		here, there := c.LocalAddr().(*net.TCPAddr), l.Addr().(*net.TCPAddr)
		if want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n", here.Port, there.Port); head != want {
			t.Errorf("header %q, want %q", head, want)
		}
		c.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(br); string(rest) != "hello\nbye" || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		c.Close()
	}
	cancel()
	wg.Wait()
	if c := in.Counts().Services["svc"].Total(); c.Requests != 4 || c.Failed != 0 || c.Retried != 1 {
		t.Errorf("%+v", c)
	}
}

func TestSlowClients(t *testing.T) {
	in := startIngress(t, Server{headerTimeout: 50 * time.Millisecond})
	const size = 8 << 20
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.Copy(w, io.LimitReader(&pattern{}, size))
	})
	in.route(t, Options{}, b)

	loris, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer loris.Close()
	io.WriteString(loris, "GET / HTTP/1.1\r\nHost: app\r\nX-Slow: ")
	loris.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(loris); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("a head that never ends was waited for")
	}

	lazy, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	io.WriteString(lazy, "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
	for range 3 { // others are served while one client does not read
		if code, body := in.get(t, "/"); code != 200 || len(body) != size {
			t.Fatalf("%d, %d bytes", code, len(body))
		}
	}
	if n, err := io.Copy(io.Discard, lazy); n < size || err != nil {
		t.Errorf("the lazy client got %d bytes, %v", n, err)
	}
}
