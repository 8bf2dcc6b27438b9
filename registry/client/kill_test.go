package client

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"appliance/registry"
	"appliance/registry/blob"
)

// TestPushSurvivesKillNine kills the registry's process in the middle of a
// push and starts it again on the same port and directory.
func TestPushSurvivesKillNine(t *testing.T) {
	if address := os.Getenv("CLIENT_TEST_REGISTRY"); address != "" {
		serve(t, address, os.Getenv("CLIENT_TEST_DIR"))
		return
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	var process *exec.Cmd
	start := func() {
		process = exec.Command(os.Args[0], "-test.run=^TestPushSurvivesKillNine$")
		process.Env = append(os.Environ(), "CLIENT_TEST_REGISTRY="+address, "CLIENT_TEST_DIR="+dir)
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() { process.Process.Kill(); process.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not start")
		}
	}

	const size = 40 << 20
	m, root := image(size)
	c := &Client{Base: "http://" + address}
	killed, first, again := false, int64(0), int64(-1)
	err = c.Push(t.Context(), m, root, "a", "v1", func(p Progress) {
		switch {
		case !killed && p.Size == size && p.Sent > size*2/3:
			killed, first = true, p.Sent
			process.Process.Kill()
			process.Wait()
			start()
		case killed && again < 0 && p.Size == size && p.Sent < first:
			again = p.Sent
		}
	})
	if err != nil || !killed {
		t.Fatal(killed, err)
	}
	if again >= 0 && again < size/3 {
		t.Fatalf("killed at %d, gone on from %d: nothing was kept", first, again)
	}
	pulled(t, c, m, root, "a")
}

func serve(t *testing.T, address, dir string) {
	store, err := blob.New(dir, blob.Options{Reserve: func(blob.Space) int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(http.ListenAndServe(address, registry.New(registry.Config{
		Blobs: registry.Local{Store: store}, Uploads: store, Index: &registry.Memory{}, Authorize: registry.AllowAll,
	})))
}
