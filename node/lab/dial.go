package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
)

// Dial connects from inside the machine, so that address may be its loopback.
// The address must be numeric.
func (l *Lab) Dial(ctx context.Context, machine, network, address string) (net.Conn, error) {
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	_, m, err := s.machine(machine)
	if err != nil {
		return nil, err
	}
	if !m.Process.alive() {
		return nil, fmt.Errorf("%s is powered off: %w: 'appliance lab start %s'", machine, ErrOff, machine)
	}
	ns, err := netns.GetFromPid(m.Process.Pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread stays locked, so it ends with this goroutine and no
		// other one ever runs in the machine's namespace.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- result{err: fmt.Errorf("enter %s: %w", machine, err)}
			return
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// Put copies a file of the host into the machine with the given mode bits
// ("755"). Missing directories are made.
func (l *Lab) Put(ctx context.Context, machine, from, to, mode string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	code, err := l.Exec(ctx, machine, Command{
		Args:  []string{"sh", "-c", `mkdir -p "$(dirname "$1")" && cat >"$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"`, "put", to, mode},
		Stdin: f,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: write %s: exit code %d", machine, to, code)
	}
	return err
}
