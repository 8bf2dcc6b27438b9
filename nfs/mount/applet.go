package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"appliance/nfs/client"
	"appliance/nfs/rpc"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	appletEnv  = "APPLIANCE_APPLET"
	appletName = "fuse-mount"
	specEnv    = "APPLIANCE_MOUNT_SPEC"
	readyFD    = 3
	// maxIO is the largest FUSE request: larger ones are no faster, and every one in flight costs
	// this much memory.
	maxIO       = 256 << 10
	maxInflight = 4 << 20
	memoryLimit = 14 << 20 // soft, of the Go heap
)

// Applet runs the FUSE client when this process was started as one, and does not return then. Call
// it first thing in main; it returns false in every other process.
func Applet() bool {
	if os.Getenv(appletEnv) != appletName {
		return false
	}
	ready := os.NewFile(readyFD, "ready")
	if err := runApplet(ready); err != nil {
		fmt.Fprint(ready, err)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func runApplet(ready *os.File) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	var s Spec
	if err := json.Unmarshal([]byte(os.Getenv(specEnv)), &s); err != nil {
		return fmt.Errorf("%s: %w", specEnv, err)
	}
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	unlock, err := lockFile(s.lockFile(), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return err
	}
	defer unlock()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("volume", s.Volume, "target", s.Target)
	if err := reachable(s); err != nil {
		return err
	}
	c := client.New(s.clientConfig(log))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	root, err := c.Getattr(client.Interrupt{C: ctx.Done()}, nil)
	cancel()
	if err != nil {
		return fmt.Errorf("volume %s does not answer: %w", s.Volume, err)
	}
	srv, err := fuse.NewServer(newFileSystem(c, root), s.Target, s.options())
	if err != nil {
		return fmt.Errorf("FUSE: %w", err)
	}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		return fmt.Errorf("FUSE: %w", err)
	}
	if err := write(Status{Spec: s, Kind: KindFUSE, PID: os.Getpid()}); err != nil {
		srv.Unmount()
		return err
	}
	fmt.Fprint(ready, "ok")
	ready.Close()
	log.Info("volume mounted")
	go unmountOnTerm(srv, log)
	srv.Wait()
	log.Info("volume unmounted")
	return nil
}

// unmountOnTerm ends an unused mount; one in use stays, since its users would lose their files.
func unmountOnTerm(srv *fuse.Server, log *slog.Logger) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	for range term {
		if err := srv.Unmount(); err != nil {
			log.Warn("asked to end, but the mount is in use", "err", err)
		}
	}
}

func (s Spec) options() *fuse.MountOptions {
	o := &fuse.MountOptions{
		AllowOther: true, Options: []string{"default_permissions"}, FsName: s.Volume,
		Name: strings.TrimPrefix(fuseType, "fuse."), MaxWrite: maxIO, MaxBackground: 32,
		MaxInflightRequestBytes: maxInflight, EnableLocks: true, DisableXAttrs: true, DisableReadDirPlus: true,
		DirectMountStrict: true, DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV,
		ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	}
	if s.ReadOnly {
		o.DirectMountFlags |= unix.MS_RDONLY
	}
	return o
}

// refusedTimeout is how long a refusal may be the moment before a volume is created on its node.
const refusedTimeout = 3 * time.Second

// reachable waits until the endpoint accepts the volume, or goes on refusing it.
func reachable(s Spec) error {
	start := time.Now()
	deadline := start.Add(startTimeout)
	for {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		c, err := s.dial(ctx)
		cancel()
		if err == nil {
			return c.Close()
		}
		if errors.Is(err, rpc.ErrRefused) && time.Since(start) > refusedTimeout || time.Now().After(deadline) {
			return fmt.Errorf("endpoint %s: %w", s.Endpoint, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// dial connects to the endpoint and names the volume.
func (s Spec) dial(ctx context.Context) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(s.Endpoint, "/") {
		network = "unix"
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, s.Endpoint)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	err = rpc.WriteHello(c, s.Volume)
	if err == nil {
		err = rpc.ReadHelloReply(c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}
