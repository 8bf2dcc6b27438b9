package runtimetest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"appliance/node/runtime"
)

var networkTests = map[string]func(*testing.T, *suite){
	"Host":      testHostNetwork,
	"None":      testNoNetwork,
	"Bridge":    testBridge,
	"PortInUse": testPortInUse,
}

func freePort(t *testing.T) uint16 {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func greeting(addr string) (string, error) {
	c, err := net.DialTimeout("tcp4", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	return bufio.NewReader(c).ReadString('\n')
}

func reachable(t *testing.T, addr string) {
	t.Helper()
	Eventually(t, addr+" answers", func() bool {
		s, err := greeting(addr)
		return err == nil && strings.HasPrefix(s, "hello ")
	})
}

func testHostNetwork(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "network")
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	spec := s.spec(t, "listen", addr)
	spec.Network = runtime.NetworkHost
	s.start(t, spec)
	reachable(t, addr)
}

func testNoNetwork(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "network")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	spec := s.spec(t, "dial", l.Addr().String())
	spec.Network = runtime.NetworkNone
	if exit, _, _ := s.run(t, spec); exit.Code != 1 {
		t.Errorf("a container without network reached the node: %v", exit)
	}
}

func testBridge(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Bridge, "bridge network")
	server, client := s.spec(t, "listen", ":8080"), s.spec(t, "run")
	port := freePort(t)
	server.Network, client.Network = runtime.NetworkBridge, runtime.NetworkBridge
	server.Ports = []runtime.PortMapping{{HostPort: port, ContainerPort: 8080}}
	s.start(t, server)
	s.start(t, client)
	st, err := s.rt.Inspect(ctx(t), server.ID)
	if err != nil || net.ParseIP(st.IP) == nil || len(st.Ports) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	published := fmt.Sprintf(":%d", port)
	reachable(t, "127.0.0.1"+published)
	reachable(t, st.IP+":8080")
	gateway := st.IP[:strings.LastIndexByte(st.IP, '.')] + ".1"
	reachable(t, gateway+published)
	for _, tc := range []struct{ name, from, to string }{
		{"container to container", client.ID, st.IP + ":8080"},
		{"container to published port", client.ID, gateway + published},
		{"container to its own published port", server.ID, gateway + published},
	} {
		if code, out, errw := s.exec(t, tc.from, "dial", tc.to); code != 0 || !strings.HasPrefix(out, "hello") {
			t.Errorf("%s: %q %q", tc.name, out, errw)
		}
	}
	if err := s.rt.Remove(ctx(t), server.ID); err != nil {
		t.Fatal(err)
	}
	if s, err := greeting("127.0.0.1" + published); err == nil {
		t.Errorf("after removal the port still answers %q", s)
	}
}

func testPortInUse(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Bridge, "bridge network")
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mapping := func(port uint16) []runtime.PortMapping {
		return []runtime.PortMapping{{HostPort: port, ContainerPort: 8080}}
	}
	spec := s.spec(t, "run")
	spec.Network, spec.Ports = runtime.NetworkBridge, mapping(uint16(l.Addr().(*net.TCPAddr).Port))
	if err := s.rt.Create(ctx(t), spec); !errors.Is(err, runtime.ErrPortInUse) {
		t.Errorf("a process's port: %v, want ErrPortInUse", err)
	}
	first, second := s.spec(t, "run"), s.spec(t, "run")
	first.Network, second.Network = runtime.NetworkBridge, runtime.NetworkBridge
	first.Ports = mapping(freePort(t))
	second.Ports = first.Ports
	s.start(t, first)
	if err := s.rt.Create(ctx(t), second); !errors.Is(err, runtime.ErrPortInUse) {
		t.Errorf("a container's port: %v, want ErrPortInUse", err)
	}
}
