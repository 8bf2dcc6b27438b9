// Package mount mounts a volume at a directory of this host: with the kernel's NFS client where
// there is one, else with a FUSE client that speaks the same NFSv4.1.
//
// The FUSE client lives in a process of its own, so that restarts and upgrades of the agent leave
// mounts, open files and locks alone. It is our own binary: main must call Applet first.
package mount

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"appliance/nfs/client"

	"golang.org/x/sys/unix"
)

// Spec says what to mount where.
type Spec struct {
	Volume string `json:"volume"`
	Target string `json:"target"` // an absolute path; made if missing
	// Endpoint is the agent's local volume endpoint, which expects a hello line: the path of a unix
	// socket, or host:port. The FUSE client dials it again whenever the connection breaks.
	Endpoint string `json:"endpoint"`
	// KernelEndpoint is a host:port on loopback that speaks NFS for this volume at once. Empty means
	// that the kernel's client is not to be used.
	KernelEndpoint string `json:"kernel_endpoint,omitempty"`
	// ClientID is unique for this host for ever (the node's id): two hosts with one id would take
	// each other's locks.
	ClientID string `json:"client_id"`
	StateDir string `json:"state_dir"` // holds one state file and log per mount
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Kinds of mounts.
const (
	KindKernel = "nfs"
	KindFUSE   = "fuse"
)

// Status describes a mount that this package made.
type Status struct {
	Spec
	Kind    string `json:"kind"`
	PID     int    `json:"pid"` // of the FUSE client; 0 for the kernel's
	Healthy bool   `json:"healthy"`
}

const (
	startTimeout = 20 * time.Second // for the first answer of the volume
	stopTimeout  = 10 * time.Second // for the FUSE client to close its files
	stopPoll     = 10 * time.Millisecond
	fuseType     = "fuse.appliance-volume"
)

// ErrBusy says that something still uses a mount. Stop it, or use ForceUnmount.
var ErrBusy = errors.New("mount is in use")

func (s Spec) check() error {
	switch {
	case s.Volume == "" || s.Endpoint == "" || s.ClientID == "" || s.StateDir == "":
		return errors.New("mount: volume, endpoint, client id and state directory are required")
	case !filepath.IsAbs(s.Target) || filepath.Clean(s.Target) != s.Target || s.Target == "/":
		return fmt.Errorf("mount: target %q must be a clean absolute path", s.Target)
	}
	return nil
}

// owner is the NFS client identifier of a FUSE mount: each mount is a client of its own.
func (s Spec) owner() string { return s.ClientID + "/" + s.Volume + s.Target }

func (s Spec) base() string {
	h := fnv.New64a()
	io.WriteString(h, s.Target)
	return filepath.Join(s.StateDir, fmt.Sprintf("mount-%016x", h.Sum64()))
}

func (s Spec) stateFile() string { return s.base() + ".json" }
func (s Spec) lockFile() string  { return s.base() + ".lock" }
func (s Spec) logFile() string   { return s.base() + ".log" }

// Mount makes s.Target show the volume. It is idempotent: a healthy mount of the same volume is
// left alone, a dead one is replaced. It returns when the volume answers.
func Mount(ctx context.Context, s Spec) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if st, ok := read(s.stateFile()); ok {
		if st.healthy() && st.Volume == s.Volume {
			return nil // not looked at: that would wait for a server that is away
		}
		if st.healthy() {
			return fmt.Errorf("%s shows volume %s already: unmount it first", s.Target, st.Volume)
		}
		if err := clean(ctx, st); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.Target, 0o755); err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mount %s: %w", s.Volume, err)
	}
	if s.KernelEndpoint != "" {
		err := mountKernel(s)
		if err == nil {
			return write(Status{Spec: s, Kind: KindKernel})
		}
		if !errors.Is(err, errNoKernelClient) {
			return fmt.Errorf("mount %s at %s: %w", s.Volume, s.Target, err)
		}
	}
	if err := startFUSE(ctx, s); err != nil {
		return fmt.Errorf("mount %s at %s: %w", s.Volume, s.Target, err)
	}
	return nil
}

// clean removes what is left of a mount whose client died.
func clean(ctx context.Context, st Status) error {
	if mounted(st.Target) {
		if err := unix.Unmount(st.Target, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
			return fmt.Errorf("remove dead mount %s: %w", st.Target, err)
		}
	}
	return errors.Join(gone(os.Remove(st.stateFile())), gone(os.Remove(st.lockFile())))
}

func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Unmount undoes Mount and returns when the client has closed everything. A target that is not
// mounted is no error; one in use is ErrBusy.
func Unmount(ctx context.Context, stateDir, target string) error {
	return unmount(ctx, stateDir, target, 0)
}

// ForceUnmount takes the mount away from processes that still use it; their requests fail.
func ForceUnmount(ctx context.Context, stateDir, target string) error {
	return unmount(ctx, stateDir, target, unix.MNT_FORCE|unix.MNT_DETACH)
}

// Release tells the server that the client of a mount that ended with a reboot will not come back,
// and removes the empty target. A restarted server would wait for it with everybody else's opens until
// its grace is over. A target that is mounted, or about to be, is left alone.
func Release(ctx context.Context, s Spec) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, known := read(s.stateFile()); known || mounted(s.Target) {
		return nil
	}
	c := client.New(s.clientConfig(slog.New(slog.DiscardHandler)))
	defer c.Close()
	if _, err := c.Getattr(client.Interrupt{C: ctx.Done()}, nil); err != nil { // the new session takes the old one's state
		return fmt.Errorf("release volume %s: %w", s.Volume, err)
	}
	return gone(os.Remove(s.Target))
}

// clientConfig is that of a client that is new to the server, whatever it held as the same owner.
func (s Spec) clientConfig(log *slog.Logger) client.Config {
	cfg := client.Config{Dial: s.dial, Owner: s.owner(), Log: log}
	rand.Read(cfg.Verifier[:])
	return cfg
}

func unmount(ctx context.Context, stateDir, target string, flags int) error {
	s := Spec{StateDir: stateDir, Target: target}
	st, known := read(s.stateFile())
	if mounted(target) {
		err := unix.Unmount(target, flags)
		switch {
		case err == unix.EBUSY:
			return fmt.Errorf("%w: %s", ErrBusy, target)
		case err != nil && err != unix.EINVAL:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	if !known {
		return nil
	}
	if st.Kind == KindFUSE {
		if err := st.awaitExit(ctx); err != nil {
			return err
		}
	}
	return errors.Join(gone(os.Remove(s.stateFile())), gone(os.Remove(s.lockFile())), gone(os.Remove(s.logFile())))
}

func (st Status) awaitExit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for st.alive() {
		select {
		case <-ctx.Done():
			unix.Kill(st.PID, unix.SIGKILL) // unmounted, yet it cannot reach the server to say so
			return nil
		case <-time.After(stopPoll):
		}
	}
	return nil
}

// List returns the mounts recorded in stateDir, by target.
func List(stateDir string) ([]Status, error) {
	names, err := filepath.Glob(filepath.Join(stateDir, "mount-*.json"))
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, n := range names {
		if st, ok := read(n); ok {
			st.Healthy = st.healthy()
			out = append(out, st)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Target < out[j].Target })
	return out, nil
}

func read(path string) (st Status, ok bool) {
	b, err := os.ReadFile(path)
	return st, err == nil && json.Unmarshal(b, &st) == nil
}

func write(st Status) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := st.stateFile() + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, st.stateFile())
}

// alive says whether the FUSE client runs: it holds a lock for as long as it lives.
func (st Status) alive() bool {
	f, err := os.OpenFile(st.lockFile(), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// healthy does not touch the mount itself: that would block while the server is away.
func (st Status) healthy() bool {
	return mounted(st.Target) && (st.Kind == KindKernel || st.alive())
}

// mounted says whether the target is a mount of one of our kinds.
func mounted(target string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || unescape.Replace(f[4]) != target {
			continue
		}
		for i := range f {
			if f[i] == "-" && i+1 < len(f) && (f[i+1] == fuseType || strings.HasPrefix(f[i+1], "nfs")) {
				return true
			}
		}
	}
	return false
}

// lock checks the spec and keeps other mounts and releases of its directory waiting.
func (s Spec) lock() (unlock func(), err error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("mount %s: %w", s.Volume, err)
	}
	return lockFile(filepath.Join(s.StateDir, "mounts.lock"), unix.LOCK_EX)
}

func lockFile(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// startFUSE runs the applet and waits until it has mounted, or tells why it could not.
func startFUSE(ctx context.Context, s Spec) error {
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	logf, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logf.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe") // the running binary, also after an upgrade replaced the file
	cmd.Args = []string{"appliance-mount", s.Volume, s.Target}
	cmd.Env = append(os.Environ(), appletEnv+"="+appletName, specEnv+"="+string(spec))
	cmd.Stdout, cmd.Stderr, cmd.Dir = logf, logf, "/"
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	go cmd.Wait() // reaps it if it ends before us
	timeout := time.Now().Add(startTimeout + 5*time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(timeout) {
		timeout = d
	}
	r.SetReadDeadline(timeout)
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case string(b) == "ok":
		return nil
	case len(b) > 0:
		return errors.New(string(b))
	}
	cmd.Process.Kill()
	return fmt.Errorf("the FUSE client did not start (%w); see %s", errors.Join(err, ctx.Err()), s.logFile())
}
