// Package lab runs the machines of a cluster description on one Linux host.
//
// A machine is a process that is pid 1 of its own pid, mount, net, uts, ipc
// and cgroup namespaces: it has its own address on a common network, host
// name, /etc/hosts, /run, /tmp, data directory and control groups, and runs
// the real binary as its supervised service, as systemd would in a virtual
// machine. It sees the host's root copy-on-write and nothing of the other
// machines. Nothing in it knows that it is a lab.
//
// The machines hang on a bridge in a namespace of its own, the switch. The
// host has one leg in it, a veth pair. So all that a lab leaves in the host's
// view is processes, one link, control groups and one directory; Down removes
// them, also what a crash left behind.
//
// Faults are real: SIGKILL, the death of the whole pid namespace, frozen
// control groups, a port that goes down, frames dropped in the switch. Those of
// 'appliance chaos' are made on the machines by package fault and end by
// themselves.
//
// A program that uses this package calls Applet first in main, because the
// machines are its own executable started again.
package lab
