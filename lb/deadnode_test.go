package lb

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/node/needs"

	"github.com/vishvananda/netns"
)

// A node that vanishes sends no reset: requests under way to it, on new and on
// pooled connections, must come back from another node.
func TestDeadNodeCostsNoGet(t *testing.T) {
	if far := os.Getenv("LB_TEST_FAR"); far != "" {
		deadNode(t, far)
		return
	}
	needs.Root(t)
	near, far := fmt.Sprintf("lb%d-near", os.Getpid()), fmt.Sprintf("lb%d-far", os.Getpid())
	for _, ns := range []string{near, far} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n "+ns+" link set lo up")
	}
	ip(t, fmt.Sprintf("-n %s link add eth0 type veth peer name eth0 netns %s", near, far))
	for i, ns := range []string{near, far} {
		ip(t, fmt.Sprintf("-n %s addr add 10.78.0.%d/24 dev eth0", ns, i+1))
		ip(t, "-n "+ns+" link set eth0 up")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", near, exe, "-test.run=^TestDeadNodeCostsNoGet$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "LB_TEST_FAR="+far)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v %s", args, err, out)
	}
}

// deadNode runs inside the near namespace.
func deadNode(t *testing.T, far string) {
	entered := make(chan struct{}, 16)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-r.Context().Done()
			return
		}
		io.WriteString(w, "far")
	})}
	l := listenIn(t, far, "10.78.0.2:0")
	go srv.Serve(l)
	defer srv.Close()
	in := startIngress(t, Server{})
	remote := Backend{ID: "far", Addr: l.Addr().String()}
	local, _ := backend(t, "near", named("near"))
	in.route(t, Options{}, remote)
	var slow sync.WaitGroup
	ask := func() {
		resp, err := in.http.Do(in.request(t, "GET", "/slow", nil))
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "near" {
			t.Errorf("%d %s", resp.StatusCode, b)
		}
	}
	for range 4 {
		slow.Go(ask)
		<-entered
	}
	in.get(t, "/") // leaves a pooled connection
	in.route(t, Options{}, remote, local)
	ip(t, "-n "+far+" link set eth0 down")

	stop := in.load(t, 4, func() *http.Request { return in.request(t, "GET", "/", nil) })
	begin := time.Now()
	slow.Wait()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("a request to the dead node took %v to come back", took)
	}
	if n, failures := stop(); len(failures) > 0 || n == 0 {
		t.Errorf("%d failures, %d good: %v", len(failures), n, failures)
	}
}

// listenIn opens a socket in another network namespace, where it stays.
func listenIn(t *testing.T, ns, addr string) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		h, err := netns.GetFromName(ns)
		if err != nil {
			got <- result{nil, err}
			return
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			got <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp", addr)
		got <- result{l, err}
	}()
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}
