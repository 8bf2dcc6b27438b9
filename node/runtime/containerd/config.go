// Package containerd drives containers through containerd v2: through the
// socket of one that runs on the machine, or through a server inside this
// process. Both take the same path; the embedded one adds a shim and runc from
// our own binary, so a bare machine needs nothing installed, and writes exits
// to disk, so that an exit is known even when nobody was there to see it.
package containerd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"appliance/node/runtime"
	"appliance/node/runtime/network"
)

// Namespace is containerd's namespace for everything we make.
const Namespace = "appliance"

// Config says where a driver lives. All paths are absolute; several drivers
// with different Node, Root and Run share one kernel.
type Config struct {
	// Node names the node's cgroup: /appliance/<Node>.
	Node string
	// Root is on disk: images, snapshots, unpacked runc.
	Root string
	// Run is on tmpfs, so that a reboot clears it: sockets, bundles, network
	// namespaces, exits. At most 39 bytes, for the shims' socket names.
	Run string
	// Address is the socket of an external containerd; empty: embedded.
	Address string
	// OCIRuntime is the path of runc or a workalike; empty: the embedded one,
	// else $APPLIANCE_RUNC, else runc on PATH. Embedded only.
	OCIRuntime string
	// Subnet for bridged containers; zero: the first free of a few.
	Network network.Config
	Log     *slog.Logger `json:"-"`
}

// maxRun leaves room for "/s/" and 64 hex digits in a socket address.
const maxRun = 39

func (c *Config) check() error {
	if c.Node == "" || strings.ContainsAny(c.Node, "/ ") {
		return &runtime.Error{Kind: runtime.ErrInvalid, What: fmt.Sprintf("containerd driver: node name %q", c.Node)}
	}
	if !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.Run) {
		return &runtime.Error{Kind: runtime.ErrInvalid, What: fmt.Sprintf("containerd driver: root %q and run %q must be absolute", c.Root, c.Run)}
	}
	if len(c.Run) > maxRun {
		return &runtime.Error{Kind: runtime.ErrInvalid, What: fmt.Sprintf("containerd driver: run directory %s", c.Run),
			Why: fmt.Errorf("%d bytes, but the kernel limits socket paths so that %d fit", len(c.Run), maxRun), Do: "choose a shorter one, such as /run/appliance"}
	}
	if os.Geteuid() != 0 {
		return &runtime.Error{Kind: runtime.ErrUnavailable, What: "containerd driver", Why: os.ErrPermission, Do: "run as root"}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Network.Run = filepath.Join(c.Run, "netns")
	c.Network.Log = c.Log
	return nil
}

// The layout below Run and Root.
func (c *Config) socket() string   { return filepath.Join(c.Run, "c.sock") }
func (c *Config) shims() string    { return filepath.Join(c.Run, "s") }
func (c *Config) state() string    { return filepath.Join(c.Run, "t") }
func (c *Config) exits() string    { return filepath.Join(c.Run, exitsDir) }
func (c *Config) files() string    { return filepath.Join(c.Run, "files") }
func (c *Config) fifos() string    { return filepath.Join(c.Run, "fifo") }
func (c *Config) runc() string     { return filepath.Join(c.Run, "runc") }
func (c *Config) store() string    { return filepath.Join(c.Root, "store") }
func (c *Config) bin() string      { return filepath.Join(c.Root, "bin") }
func (c *Config) tmp() string      { return filepath.Join(c.Root, "tmp") }
func (c *Config) cgroup() string   { return "/appliance/" + c.Node }
func (c *Config) embedded() bool   { return c.Address == "" }
func (c *Config) shimLink() string { return filepath.Join(c.bin(), shimName) }

func (c *Config) makeDirs() error {
	for _, d := range []string{c.Run, c.shims(), c.exits(), c.files(), c.fifos(), c.Root, c.bin(), c.tmp()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return runtime.Fail(nil, err, "containerd driver: make directory")
		}
	}
	return nil
}

// runID names this run directory, and with it the time from one boot to the
// next. It is made when it is not there.
func (c *Config) runID() (string, error) {
	path := filepath.Join(c.Run, "id")
	if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
		return string(b), nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := rand.Text()
	if err := os.WriteFile(path+".new", []byte(id), 0o600); err != nil {
		return "", err
	}
	return id, os.Rename(path+".new", path)
}
