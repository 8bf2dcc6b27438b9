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
	if s, err := readState(o.Dir); err == nil {
		o.Name = s.Name
	}
	marked := isMarked(o.Dir)
	if other := owner(cgroupOf(o.Name)); other != "" && other != o.Dir {
		if !marked {
			return nil // the name is another lab's; here is none
		}
		return fmt.Errorf("the lab's name %s is also that of the lab at %s: remove that one first", o.Name, other)
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
		_ = os.Remove(o.Dir) // an empty one of an Up killed just after it made it; any other stays
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

// isMarked says whether the directory is a lab's: whole or damaged, or made by
// an Up that was killed before its first save was through.
func isMarked(dir string) bool {
	for _, name := range []string{stateFile, stateFile + ".new"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// owner is the directory of the lab whose processes are in the control group,
// "" if there is none.
func owner(group string) string {
	for _, p := range groupProcesses(group) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid)) // one that is gone has none
		if !hasEnv(env, envApplet+"="+appletMachine) && !hasEnv(env, envApplet+"="+appletSwitch) {
			continue
		}
		for _, e := range strings.Split(string(env), "\x00") {
			if dir, ok := strings.CutPrefix(e, envLab+"="); ok {
				return dir
			}
		}
	}
	return ""
}

// sweep ends processes and removes what they held. It trusts no file: a
// process is found by its mark, link and groups by their names.
func sweep(ctx context.Context, dir, name string) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	group := cgroupOf(name)
	_ = thawAll(group) // a frozen process does not die; without groups nothing is frozen
	if err := killAll(ctx, dir, group); err != nil {
		return err
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	return errors.Join(removeLink(h, hostLink(name)), removeCgroups(group))
}

// settle is how long no process of the lab must be seen until all count as
// dead. A process shows no environment for a moment while it executes another
// program, and a killed Up may have left one just there.
const settle = 50 * time.Millisecond

func killAll(ctx context.Context, dir, group string) error {
	for quiet := 0; quiet < 2; {
		list := append(findProcesses(dir), groupProcesses(group)...)
		for _, p := range list {
			if err := p.kill(ctx); err != nil {
				return err
			}
		}
		if quiet++; len(list) > 0 {
			quiet = 0
			continue
		}
		time.Sleep(settle)
	}
	return nil
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
