package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
)

const (
	envApplet = "APPLIANCE_APPLET"
	envLab    = "APPLIANCE_LAB" // directory of the lab: the mark by which Down finds processes
	// envConfig is the file with the machineConfig.
	envConfig = "APPLIANCE_LAB_CONFIG"

	appletBoot    = "lab-boot"
	appletMachine = "lab-machine"
	appletSwitch  = "lab-switch"
	appletDisk    = "lab-disk"
	appletFault   = "lab-fault"
	appletKeeper  = "lab-fault-keeper"
	appletPower   = "lab-power-keeper"
)

// reportFd is the pipe on which a starting machine reports to the host.
const reportFd = 3

// report is one message on that pipe, one JSON value a line.
type report struct {
	Pid   int    `json:"pid,omitempty"` // host's pid of the machine
	Ready bool   `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// Applet runs this process as a part of a lab if it was started as one, and
// then does not return. Otherwise it returns false. Call it first in main:
// before flags, before goroutines.
func Applet() bool {
	applet := os.Getenv(envApplet)
	switch applet {
	case appletFault, appletKeeper, appletPower:
		if err := runFault(applet); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case appletBoot, appletMachine, appletSwitch, appletDisk:
	default:
		return false
	}
	syscall.CloseOnExec(reportFd)
	out := os.NewFile(reportFd, "report")
	if err := runApplet(applet, out); err != nil {
		json.NewEncoder(out).Encode(report{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func runApplet(applet string, out *os.File) error {
	if applet == appletDisk {
		return runDisk(out)
	}
	cfg, err := readConfig(os.Getenv(envConfig))
	if err != nil {
		return err
	}
	switch applet {
	case appletBoot:
		return boot(cfg, out)
	case appletSwitch:
		return holdSwitch(out)
	default:
		return runMachine(cfg, out)
	}
}

// machineConfig is all a machine learns from the host when it starts.
type machineConfig struct {
	Applet  string   `json:"applet"` // what boot turns into
	Lab     string   `json:"lab"`    // lab directory
	Cgroup  string   `json:"cgroup"` // path below each hierarchy's root
	Name    string   `json:"name"`   // host name
	Dir     string   `json:"dir"`    // the machine's directory on the host
	Hosts   string   `json:"hosts"`  // content of /etc/hosts
	Service []string `json:"service"`
	Env     []string `json:"env"`
	Lying   bool     `json:"lying,omitempty"` // the data directory is on a lying disk
}

func readConfig(path string) (machineConfig, error) {
	var cfg machineConfig
	text, err := os.ReadFile(path)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(text, &cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// boot is the step between host and machine: it enters the machine's control
// groups and starts the machine in new namespaces. It must be a process of
// its own because the root of a cgroup namespace is where the process is when
// it makes the namespace.
func boot(cfg machineConfig, out *os.File) error {
	flags := uintptr(syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS)
	if cfg.Applet == appletMachine {
		flags |= syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP
	}
	if err := enterCgroups(cfg.Cgroup); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	p, err := os.StartProcess(exe, []string{"appliance-lab", cfg.Name}, &os.ProcAttr{
		Dir:   "/",
		Env:   append([]string{envApplet + "=" + cfg.Applet, envLab + "=" + cfg.Lab, envConfig + "=" + os.Getenv(envConfig), "PATH=" + defaultPath}, cfg.Env...),
		Files: []*os.File{null, null, os.Stderr, out},
		Sys:   &syscall.SysProcAttr{Cloneflags: flags, Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s in new namespaces: %w: this needs root and a kernel with net, pid, mount, uts, ipc and cgroup namespaces", cfg.Name, err)
	}
	return json.NewEncoder(out).Encode(report{Pid: p.Pid})
}

// holdSwitch keeps the switch's network namespace alive until it is killed.
func holdSwitch(out *os.File) error {
	ignoreSignals()
	if err := json.NewEncoder(out).Encode(report{Ready: true}); err != nil {
		return err
	}
	out.Close()
	newReaper().run(nil) // pid 1 of its namespace, though nothing else runs there
	return nil
}
