package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"appliance/vagrant"
)

// Up starts the machines of c. Nothing has changed if it returns an error,
// except that disks of an earlier run stay. Services are not started: see
// Bootstrap and Start.
//
// If the directory holds the disks of a lab that is not running (the host has
// been restarted), the machines get them again.
func Up(ctx context.Context, c vagrant.Cluster, o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	before, err := preflight(c, o)
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: o.Dir, log: o.Log}
	s := &state{Name: o.Name, Cluster: c, Service: o.Service, Env: o.Env, Lying: o.Lying, Machines: map[string]*machineState{}}
	for _, m := range c.Machines {
		s.Machines[m.Name] = &machineState{}
		if before != nil && before.Machines[m.Name] != nil {
			s.Machines[m.Name].Member = before.Machines[m.Name].Member
		}
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lock(l.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := l.save(s); err != nil { // the mark that lets Down remove things
		return nil, err
	}
	if err := l.powerOn(ctx, s, o.Binary); err != nil {
		clean := context.WithoutCancel(ctx)
		errs := []error{err, sweep(clean, l.dir, s.Name)}
		if before == nil {
			errs = append(errs, os.RemoveAll(l.dir))
		}
		return nil, errors.Join(errs...)
	}
	o.Log.Info("lab is up", "dir", l.dir, "machines", len(c.Machines), "network", c.Network, "link", hostLink(s.Name))
	return l, nil
}

func (l *Lab) powerOn(ctx context.Context, s *state, exe string) error {
	if err := l.install(s, exe); err != nil {
		return err
	}
	dir := filepath.Join(l.dir, "."+appletSwitch)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sw, err := bootProcess(ctx, l.binary(), machineConfig{
		Applet: appletSwitch, Lab: l.dir, Cgroup: cgroupOf(s.Name) + "/." + appletSwitch, Name: "switch", Dir: dir, Env: s.Env,
	})
	if err != nil {
		return err
	}
	s.Switch = sw
	if err := l.save(s); err != nil {
		return err
	}
	if err := wireSwitch(sw, s.Name, s.Cluster); err != nil {
		return err
	}
	var group errgroup.Group
	for _, m := range s.Cluster.Machines {
		group.Go(func() error { return l.bootMachine(ctx, s, m) })
	}
	return errors.Join(group.Wait(), l.save(s))
}

// binary is the lab's own copy: a build on the host must not change what runs.
func (l *Lab) binary() string { return filepath.Join(l.dir, "bin", binary) }

// install copies the binary and makes the machines' directories.
func (l *Lab) install(s *state, exe string) error {
	if err := os.MkdirAll(filepath.Dir(l.binary()), 0o700); err != nil {
		return err
	}
	if err := copyFile(exe, l.binary()); err != nil {
		return fmt.Errorf("copy the binary: %w", err)
	}
	for _, m := range s.Cluster.Machines {
		for _, dir := range []string{"data", "run", "bin", "root"} {
			if err := os.MkdirAll(filepath.Join(l.dir, m.Name, dir), 0o700); err != nil {
				return err
			}
		}
		if err := l.upgrade(m.Name); err != nil {
			return err
		}
	}
	return nil
}

// upgrade gives the lab's binary to one machine. A link saves the disk; the
// rename leaves a running process its old file.
func (l *Lab) upgrade(machine string) error {
	target := filepath.Join(l.dir, machine, "bin", binary)
	_ = os.Remove(target + ".new") // left by a crash
	if err := os.Link(l.binary(), target+".new"); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// bootMachine powers a machine on and plugs it in. Each machine's state is
// its own, so that several may boot at once.
func (l *Lab) bootMachine(ctx context.Context, s *state, m vagrant.Machine) error {
	dir := filepath.Join(l.dir, m.Name)
	if err := emptyDir(filepath.Join(dir, "run")); err != nil { // a machine's /run does not survive power-off
		return err
	}
	p, err := bootProcess(ctx, l.binary(), machineConfig{
		Applet: appletMachine, Lab: l.dir, Cgroup: cgroupOf(s.Name) + "/" + m.Name,
		Name: m.Name, Dir: dir, Hosts: hostsFile(s.Cluster), Service: s.Service, Env: s.Env, Lying: s.Lying,
	})
	ms := s.Machines[m.Name]
	ms.Process, ms.Paused, ms.OffUntil = p, false, time.Time{}
	if err != nil {
		return err
	}
	if err := wireMachine(s.Switch, p, s.Cluster, m); err != nil {
		return err
	}
	if ms.LinkDown { // a cable that was pulled stays pulled
		return setPort(s.Switch, m.Name, false)
	}
	return nil
}

func cgroupOf(lab string) string { return "appliance-" + lab }

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// hostsFile names all machines, and the apps' host names at the VIP.
func hostsFile(c vagrant.Cluster) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, m := range c.Machines {
		fmt.Fprintf(&b, "%s %s\n", m.Address, m.Name)
	}
	if c.VIP.IsValid() && len(c.Names) > 0 {
		fmt.Fprintf(&b, "%s %s\n", c.VIP, strings.Join(c.Names, " "))
	}
	return b.String()
}
