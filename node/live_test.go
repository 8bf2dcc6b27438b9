package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/needs"
	"appliance/node/wire"
)

// live is a node of a cluster in this process, founded or joined as a machine
// is and opened as Run opens it: log, gossip, certificates, files, sockets and
// watchdogs are real. It lacks what binds a port that a machine has once
// (registry, ingress, dialects) and the container runtime.
type live struct {
	*Node
	t      *testing.T
	tokens map[string]string // of the founder
	client *http.Client      // to its API socket
	ctx    context.Context
	cancel context.CancelFunc
	parts  sync.WaitGroup
}

var lives atomic.Uint32 // addresses given away

// liveConfig is a machine with an address of its own, like wiretest.Addr, but
// one for each, since nodes have fixed ports.
func liveConfig(t *testing.T, name string, role model.Role) Config {
	c := machine(t)
	pid := os.Getpid()
	host := netip.AddrFrom4([4]byte{127, byte(128 + lives.Add(1)%120), byte(pid >> 8), byte(pid)})
	c.Data = filepath.Join(needs.Disk(t, "1g"), "data") // a busy machine's disk would be a fault of its own
	c.Name, c.Role, c.Advertise, c.VIP, c.Ingress = name, role, host.String(), "", false
	return c
}

// found makes a cluster.
func found(t *testing.T) *live {
	t.Helper()
	c := liveConfig(t, "mm1", model.RoleMaster)
	f, err := Init(c, founding)
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, c).listen()
	l.tokens = f.Join
	l.until("it leads", func() bool { return l.core.leader() == l.cfg.ID && !l.Node.founding() })
	return l
}

// admit joins a machine and does not start it.
func (l *live) admit(name string, role model.Role) Config {
	l.t.Helper()
	c := liveConfig(l.t, name, role)
	if _, err := Join(l.t.Context(), c, l.tokens[string(role)], l.cfg.Advertise); err != nil {
		l.t.Fatal(err)
	}
	return c
}

// start runs a node on what is in its directory. Others do not reach it before
// it listens.
func start(t *testing.T, c Config) *live {
	t.Helper()
	c, err := Load(c.Data, c.Run)
	if err != nil {
		t.Fatal(err)
	}
	log := quiet()
	if os.Getenv("NODE_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", c.Name)
	}
	l := &live{t: t}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	n := &Node{cfg: c, version: "v1", log: log, done: l.ctx.Done(), watchdogs: newWatchdogs(log), started: time.Now()}
	l.Node = n
	for _, open := range []func(context.Context) error{n.openData, n.openIdentity, n.openCore, n.openGeneration, n.openVersions, n.openHashes, n.openGossip,
		n.openWatchdogs, n.openCatalog, n.openVolumes, n.openIngress, n.openLeader, n.openAPI} {
		if err := open(l.ctx); err != nil {
			t.Fatal(err)
		}
	}
	n.part("announce", n.announce)
	n.part("masters", n.keepMasters)
	n.part("trust", n.trust.Run)
	for _, p := range n.parts {
		l.run(p)
	}
	l.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.Run, "api.sock"))
	}}}
	t.Cleanup(l.stop)
	return l
}

func (l *live) run(p part) {
	l.parts.Go(func() {
		if err := p.run(l.ctx); l.ctx.Err() == nil {
			l.t.Errorf("%s: %s ended: %v", l.cfg.Name, p.name, err)
		}
	})
}

// listen opens the wire port.
func (l *live) listen() *live {
	l.t.Helper()
	ln, err := listen(net.JoinHostPort(l.cfg.Advertise, strconv.Itoa(wire.Port)), "other nodes")
	if err != nil {
		l.t.Fatal(err)
	}
	l.server.HandleHTTP(l.fence.Handler(l.rpc))
	if l.voter != nil {
		l.server.HandleJoin(l.admission().handler())
	}
	l.run(part{"wire", func(ctx context.Context) error { return l.server.Run(ctx, ln) }})
	return l
}

func (l *live) stop() {
	l.cancel()
	l.parts.Wait()
	l.dialer.Close()
}

// call makes one request over the API socket.
func (l *live) call(method, path, body string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, "", err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return resp, string(text), err
}

// put writes a key.
func (l *live) put(key, value string) error {
	_, _, err := l.call(http.MethodPut, "/v1/kv/"+key, value)
	return err
}

// get reads a key as this node has it.
func (l *live) get(key string) string {
	_, text, err := l.call(http.MethodGet, "/v1/kv/"+key+"?raw&stale", "")
	if err != nil {
		return err.Error()
	}
	return text
}

// view reads from the node's own API.
func (l *live) view(path string, out any) {
	l.t.Helper()
	if err := getJSON(l.t.Context(), l.client, "http://node"+api.Prefix+path, 1<<20, out); err != nil {
		l.t.Fatalf("%s of %s: %v", path, l.cfg.Name, err)
	}
}

// patience is for a busy machine, on which an election takes many tries.
const patience = 90 * time.Second

func (l *live) until(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			var st api.Status
			l.view("/status", &st)
			l.t.Fatalf("%s, as %s sees it: never; leader %q, %v", what, l.cfg.Name, st.Leader, st.Warnings)
		}
	}
}
