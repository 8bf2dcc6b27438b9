package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// killTime bounds the end of all processes of a lab.
const killTime = 30 * time.Second

// Down removes the lab at o.Dir and everything it made: processes, namespaces
// (with links, rules and mounts in them), the host's link, control groups and
// the directory with all disks. It also removes what a crash in the middle of
// Up or Down left. Without a lab it does nothing.
func Down(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab belongs to root: run this as root")
	}
	s, err := readState(o.Dir)
	marked := !errors.Is(err, ErrDown) // a damaged state file is a mark, too
	if err == nil {
		o.Name = s.Name
	}
	if marked {
		unlock, err := lock(o.Dir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := sweep(ctx, o.Dir, o.Name); err != nil {
		return err
	}
	if !marked {
		return nil
	}
	if err := unmountBelow(o.Dir); err != nil {
		return err
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		return fmt.Errorf("remove the lab's directory: %w", err)
	}
	o.Log.Info("lab is down", "dir", o.Dir)
	return nil
}

// sweep ends processes and removes what they held. It trusts no file: a
// process is found by its mark, link and groups by their names.
func sweep(ctx context.Context, dir, name string) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	group := cgroupOf(name)
	_ = thawAll(group) // a frozen process does not die; without groups nothing is frozen
	for list := findProcesses(dir); len(list) > 0; list = findProcesses(dir) {
		for _, p := range list {
			if err := p.kill(ctx); err != nil {
				return err
			}
		}
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	return errors.Join(removeLink(h, hostLink(name)), removeCgroups(group))
}

func thawAll(group string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range list {
		if !h.controls("freezer") && !h.v2 {
			continue
		}
		machines, _ := filepath.Glob(filepath.Join(h.point, group, "*", "cgroup.procs"))
		for _, file := range machines {
			m := filepath.Base(filepath.Dir(file))
			err = errors.Join(err, freeze(filepath.Join(group, m), false))
		}
	}
	return err
}

// unmountBelow is the last resort before files are removed: nothing of ours
// is mounted in the host's view, but somebody's test may have.
func unmountBelow(dir string) error {
	points := mountPoints()
	for i := len(points) - 1; i >= 0; i-- {
		if !strings.HasPrefix(points[i], dir+"/") {
			continue
		}
		if err := syscall.Unmount(points[i], syscall.MNT_DETACH); err != nil && err != syscall.EINVAL {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}
