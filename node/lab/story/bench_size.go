package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"appliance/vagrant"
)

func (b *Bench) binary(context.Context) error {
	info, err := os.Stat(b.s.o.Binary)
	if err != nil {
		return err
	}
	note := ""
	if !stripped(b.s.o.Binary) {
		note = "not a release build: it has debug information"
	}
	b.less("release binary with embedded containerd and runc", "MB", float64(info.Size())/1e6, 60, 45, note)
	return nil
}

// idleTime is how long nodes are left alone before their memory is looked at:
// until they have given back what only their start needed (node/trim).
const idleTime = 30 * time.Second

// memory looks at the nodes before anything runs on them.
func (b *Bench) memory(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleTime):
	}
	worst := map[string]memory{}
	for _, m := range b.s.cluster.Machines {
		pid, err := b.s.hostPid(ctx, m.Name)
		if err != nil {
			return err
		}
		mem, err := memoryOf(pid)
		if err != nil {
			return err
		}
		if mem.total > worst[m.Role].total {
			worst[m.Role] = mem
		}
	}
	for _, r := range []struct {
		role        string
		floor, goal float64
	}{{vagrant.RoleAgent, 60, 35}, {vagrant.RoleMaster, 90, 50}} {
		m := worst[r.role]
		b.less("idle RSS, "+r.role, "MB", m.total, r.floor, r.goal,
			fmt.Sprintf("%.1f MB of it anonymous; the rest is the program file, which the nodes of a lab share", m.anon))
	}
	return nil
}

type memory struct{ total, anon float64 } // MB

// memoryOf reads VmRSS and RssAnon of /proc/PID/status (proc(5)).
func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		kb, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 64)
		return kb * 1024 / 1e6
	}
	return memory{field("VmRSS"), field("RssAnon")}, nil
}

// hostPid finds the process of a machine's service as the host sees it: the
// one in the machine's pid namespace with the pid that the machine tells.
func (s *Story) hostPid(ctx context.Context, machine string) (int, error) {
	st, err := s.lab.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range st.Machines {
		if m.Name != machine || m.Service == nil {
			continue
		}
		space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.Pid))
		if err != nil {
			return 0, err
		}
		links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
		for _, link := range links {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			if here, err := os.Readlink(link); err == nil && here == space && innerPid(pid) == m.Service.Pid {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("the service of %s does not run", machine)
}

// innerPid is the pid that a process has in its own namespace.
func innerPid(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	f := strings.Fields(line)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(f[len(f)-1])
	return n
}
