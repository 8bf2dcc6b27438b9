package lab

import (
	"encoding/json"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
)

const (
	defaultPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	controlSocket = "control.sock"
	logFile       = "log"
)

// runMachine is pid 1 of a machine. It returns only if the machine could not
// start; afterwards it lives until it is killed.
func runMachine(cfg machineConfig, out *os.File) error {
	ignoreSignals()
	debug.SetGCPercent(20) // seven of these idle beside the cluster: prefer a small heap
	// What lies on the host is opened before the host's tree is gone.
	listener, err := listenControl(filepath.Join(cfg.Dir, controlSocket))
	if err != nil {
		return err
	}
	output, err := os.OpenFile(filepath.Join(cfg.Dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := buildRoot(cfg); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(cfg.Name)); err != nil {
		return err
	}
	env := append([]string{"PATH=" + defaultPath, "HOME=/root", "LANG=C.UTF-8"}, cfg.Env...)
	os.Clearenv()
	os.Setenv("PATH", defaultPath) // commands are looked up with it
	r := newReaper()
	if cfg.Lying {
		if err := startDisk(r, output); err != nil {
			return err
		}
	}
	svc := newService(r, cfg.Service, env, output)
	go svc.run()
	go sweepFaults(cfg, output)
	go (&control{reaper: r, service: svc, env: env}).serve(listener)
	if err := json.NewEncoder(out).Encode(report{Ready: true}); err != nil {
		return err
	}
	out.Close()
	r.run(nil)
	return nil
}

func listenControl(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err // left by a machine that was powered off
	}
	return net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
}

// ignoreSignals keeps pid 1 alive: the kernel protects it from default
// actions, but Go's runtime would exit by itself. They are caught and not
// ignored, because a child inherits what is ignored.
func ignoreSignals() {
	caught := make(chan os.Signal, 1) // never read: what does not fit is dropped
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
}
