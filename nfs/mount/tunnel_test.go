package mount

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"appliance/nfs/tunnel"

	"golang.org/x/sys/unix"
)

// agent is a tunnel that tests stop and start, as an upgrade of the agent does.
func (v *volume) agent() (stop func()) {
	sock := filepath.Join(v.dir, "agent")
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	must(v.t.(*testing.T), err)
	ctx, cancel := context.WithCancel(context.Background())
	tn := &tunnel.Tunnel{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(v.dir, "sock"))
	}}
	done := make(chan error, 1)
	go func() { done <- tn.Serve(ctx, l) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			v.t.Error(err)
		}
	}
}

func TestAgentRestart(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	stop := v.agent()
	t.Cleanup(func() { stop() }) // after the mounts are gone: closing a locked file needs the server
	s := v.spec(1)
	s.Endpoint = filepath.Join(v.dir, "agent")
	must(t, Mount(context.Background(), s))
	t.Cleanup(func() { ForceUnmount(context.Background(), s.StateDir, s.Target) })
	f, err := os.Create(s.Target + "/f")
	must(t, err)
	defer f.Close()
	must(t, setLk(f, unix.F_WRLCK, 0, 0))
	for range 3 {
		_, err = f.WriteString("x")
		must(t, err)
		stop()
		wrote := make(chan error, 1)
		go func() {
			_, err := f.WriteString("y")
			wrote <- err
		}()
		stop = v.agent()
		must(t, <-wrote)
	}
	must(t, f.Sync())
	b := v.mount(2)
	wantContent(t, b+"/f", "xyxyxy")
	fb, err := os.OpenFile(b+"/f", os.O_RDWR, 0)
	must(t, err)
	defer fb.Close()
	if setLk(fb, unix.F_WRLCK, 0, 0) == nil {
		t.Fatal("the restart of an agent lost a lock")
	}
}

func TestKernelOptions(t *testing.T) {
	const want = "vers=4.1,proto=tcp,sec=sys,addr=127.0.0.1,clientaddr=127.0.0.1,port=7,hard,timeo=50,retrans=2,lookupcache=positive,actimeo=3,rsize=1048576,wsize=1048576"
	if got := kernelOptions("127.0.0.1", "7"); got != want {
		t.Fatalf("got %s", got)
	}
}
