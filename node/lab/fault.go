package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"appliance/node/lab/fault"
	"appliance/node/lab/lyingfs"
)

const (
	// platter is the honest directory below a machine's lying disk.
	platter = "/var/lib/.appliance-disk"
	// honest is the part of it that the lying disk does not cover: the file
	// systems of containers cannot be on FUSE.
	honest      = "containers"
	diskAddress = "@appliance-disk" // of this network namespace only
	faultDir    = "chaos"           // in the machine's run directory
)

func faultMachine(lying bool) fault.Machine {
	m := fault.Machine{Dir: filepath.Join(runDir, faultDir), Link: machineEth, API: filepath.Join(runDir, "api.sock")}
	if lying {
		m.Disk = diskAddress
	}
	return m
}

// runFault is one of the helper processes that make faults.
func runFault(applet string) error {
	switch applet {
	case appletFault:
		return fault.Serve(os.Stdin, os.Stdout, []string{envApplet + "=" + appletKeeper, "PATH=" + defaultPath})
	case appletKeeper:
		return fault.Keep()
	default:
		return keepOff(os.Getenv(envLab), os.Getenv(envConfig))
	}
}

// runDisk serves the data directory of the machine it runs in.
func runDisk(out *os.File) error {
	return lyingfs.Serve(platter, dataDir, diskAddress, func() {
		_ = json.NewEncoder(out).Encode(report{Ready: true}) // pid 1 waits for it
		out.Close()
	})
}

// startDisk starts the lying disk and returns when it is there.
func startDisk(r *reaper, output *os.File) error {
	for _, dir := range []string{filepath.Join(platter, honest), filepath.Join(dataDir, honest)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	_, _, err = r.start([]string{"/proc/self/exe", "disk"}, []string{envApplet + "=" + appletDisk, "PATH=" + defaultPath, "GOGC=50"}, "/", []*os.File{null, output, output, out})
	out.Close()
	if err != nil {
		return err
	}
	in.SetReadDeadline(time.Now().Add(bootTime))
	var rep report
	if err := json.NewDecoder(in).Decode(&rep); err != nil || !rep.Ready {
		return fmt.Errorf("the lying disk did not start: %v %s", err, rep.Error)
	}
	return bind(filepath.Join(platter, honest), filepath.Join(dataDir, honest))
}

// sweepFaults is the second line: it ends what a dead keeper did not.
func sweepFaults(cfg machineConfig, output *os.File) {
	m := faultMachine(cfg.Lying)
	for {
		time.Sleep(time.Second)
		if err := m.Sweep(time.Now()); err != nil {
			fmt.Fprintf(output, "supervisor: a fault that is over cannot be ended: %v\n", err)
		}
	}
}

// Begin makes a fault on the machine. It ends at its deadline by itself. The
// fields Began, Until and Service are filled in.
func (l *Lab) Begin(ctx context.Context, machine string, f fault.Fault) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	f.Service = s.Service
	return l.askFault(ctx, s, machine, fault.Request{Op: "begin", Fault: f})
}

// EndFaults ends all faults of the machine, and starts it if it was powered
// off for a while.
func (l *Lab) EndFaults(ctx context.Context, machine string) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	_, ms, err := s.machine(machine)
	if err != nil {
		return err
	}
	if !ms.Process.alive() {
		if ms.OffUntil.IsZero() {
			return nil
		}
		return l.Start(ctx, machine)
	}
	if ms.Paused {
		return nil // frozen by 'lab pause', with the keepers of its faults
	}
	return l.askFault(ctx, s, machine, fault.Request{Op: "heal"})
}

// EndFault ends one fault of the machine.
func (l *Lab) EndFault(ctx context.Context, machine, id string) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	return l.askFault(ctx, s, machine, fault.Request{Op: "end", Fault: fault.Fault{ID: id}})
}

func (l *Lab) askFault(ctx context.Context, s *state, machine string, req fault.Request) error {
	req.Machine = faultMachine(s.Lying)
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	var out, errs bytes.Buffer
	code, err := l.Exec(ctx, machine, Command{Args: []string{filepath.Join(binaryDir, binary), "chaos"}, Env: []string{envApplet + "=" + appletFault},
		Stdin: bytes.NewReader(text), Stdout: &out, Stderr: &errs})
	if err != nil {
		return err
	}
	var rep fault.Reply
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		return fmt.Errorf("%s: the fault's helper ended with code %d: %s", machine, code, bytes.TrimSpace(errs.Bytes()))
	}
	if rep.Error != "" {
		return fmt.Errorf("%s: %s", machine, rep.Error)
	}
	return nil
}

// Faults are those in force on the machine. One that is off has none.
func (l *Lab) Faults(machine string) ([]fault.Fault, error) {
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	_, ms, err := s.machine(machine)
	if err != nil || !ms.Process.alive() {
		return nil, err
	}
	return fault.List(l.faults(machine))
}

// Ended are the faults of the machine that are over since it was powered on.
func (l *Lab) Ended(machine string) ([]fault.Ended, error) { return fault.Results(l.faults(machine)) }

func (l *Lab) faults(machine string) string { return filepath.Join(l.dir, machine, "run", faultDir) }

// HardwareAddr is the address of the machine's interface; "host" is the
// host's.
func (l *Lab) HardwareAddr(machine string) (string, error) {
	s, err := l.state()
	if err != nil {
		return "", err
	}
	if machine == hostPort {
		return mac(s.Cluster.Host).String(), nil
	}
	m, ms, err := s.machine(machine)
	if err != nil {
		return "", err
	}
	text := mac(m.Address).String() // that it gets when it is powered on
	if !ms.Process.alive() {
		return text, nil
	}
	err = inNamespace(ms.Process, func(h *netlink.Handle, _ netns.NsHandle) error {
		link, err := h.LinkByName(machineEth)
		if err == nil {
			text = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	return text, err
}

// Addresses are all IPv4 addresses that the machine answers for on the
// network.
func (l *Lab) Addresses(machine string) ([]string, error) {
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	_, ms, err := s.machine(machine)
	if err != nil || !ms.Process.alive() {
		return nil, err
	}
	var list []string
	err = inNamespace(ms.Process, func(h *netlink.Handle, _ netns.NsHandle) error {
		link, err := h.LinkByName(machineEth)
		if err != nil {
			return err
		}
		addrs, err := h.AddrList(link, netlink.FAMILY_V4)
		for _, a := range addrs {
			list = append(list, a.IP.String())
		}
		return err
	})
	return list, err
}

// Proc is the host's path of a process's directory in the machine's /proc.
func (l *Lab) Proc(machine string, pid int) (string, error) {
	s, err := l.state()
	if err != nil {
		return "", err
	}
	_, ms, err := s.machine(machine)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root/proc/%d", ms.Process.Pid, pid), nil
}

// Containers are the ids of the control groups below the machine's that have
// processes, by their last element.
func (l *Lab) Containers(machine string) (map[string]int, error) {
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, group := range populated(filepath.Join(cgroupOf(s.Name), machine)) {
		found[filepath.Base(group)]++
	}
	return found, nil
}

// PowerOffFor powers the machine off until the given time. A process of its
// own, which outlives this one, then powers it on again.
func (l *Lab) PowerOffFor(ctx context.Context, machine string, until time.Time) error {
	if err := l.PowerOff(ctx, machine); err != nil {
		return err
	}
	err := l.update(func(s *state) error {
		s.Machines[machine].OffUntil = until
		return nil
	})
	if err != nil {
		return err
	}
	cmd := exec.Command(l.binary())
	cmd.Args = []string{"appliance-lab", "power", machine}
	cmd.Env = []string{envApplet + "=" + appletPower, envLab + "=" + l.dir, envConfig + "=" + machine, "PATH=" + defaultPath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, l.Start(ctx, machine))
	}
	go cmd.Wait() // whoever of the two ends first
	return nil
}

// keepOff is the process that powers a machine on again.
func keepOff(dir, machine string) error {
	l, err := Open(dir, nil)
	if err != nil {
		return err
	}
	for {
		s, err := l.state()
		if err != nil {
			return err
		}
		_, ms, err := s.machine(machine)
		if err != nil || ms.OffUntil.IsZero() {
			return err // somebody has powered it on
		}
		if time.Now().After(ms.OffUntil) {
			return l.Start(context.Background(), machine)
		}
		time.Sleep(min(time.Until(ms.OffUntil)+time.Millisecond, 200*time.Millisecond))
	}
}

// Lying says whether the machines have lying disks.
func (l *Lab) Lying() (bool, error) {
	s, err := l.state()
	return s != nil && s.Lying, err
}
