// Package chaos breaks the machines of a lab on purpose and looks what holds.
//
// A fault is a Spec: a kind, machines (or what one is at the moment, such as
// the leader), and how long. Control begins it and has no part in its end:
// package fault sees to that on the machines themselves. A fault after which
// no majority of the masters could agree is refused unless that risk is
// accepted; of the masters those count that vote and live by the leader's word.
//
// A Scenario is data: steps with times. Run runs scenarios under load. The
// clients are visitors of an app with and without keep-alive and through two
// ingresses, writers of notes, writers of keys, clients whose history of keys
// is judged for linearizability, contenders for a lease, resolvers, and
// somebody who scales the app. While they work, every node is asked what it
// believes, and processes, addresses and the audit log are looked at. When
// the faults are over, everything must be at its target within a minute, every
// acknowledged write must be there (each has a key of its own until it was read
// back), and all nodes must have the same state at one index. A leader whose disk
// gets slow, full or hung must hand over within 5 s and end as a follower. Links
// that work one way and wrong clocks must be shown by net and doctor while they
// last.
//
// A run that finds nothing wrong must have been able to: too little traffic,
// faults that never dropped a frame, delayed a write, killed a process or were
// told by the service itself, a step that was never carried out, or a rule that
// was not looked at once for each scenario, make it meaningless, which is a
// failure, too. What could not be judged is a violation.
//
// # What to know when a run fails
//
//   - Violations are printed as they are found, with the time; the machines'
//     logs (appliance lab logs, with --keep) tell the other side.
//   - The choices of a run follow from its seed; the timing does not.
//   - Requests that fail while a fault is in force are no violations: they are
//     the availability report. Acknowledged ones that turn out to be lost are.
//   - A client that speaks to a node's socket sits on that node: it works when
//     the machine is cut off.
//   - Two holders of the virtual address are no violation while a fault parts
//     these two from each other (lb/DESIGN.md), and one if both answer for more
//     than a second otherwise, or after it.
//   - Growth is judged in runs of 15 minutes and more, twice: at like age where
//     processes die, and of each process with itself where none does for 15
//     minutes. A run of an hour has only calm scenarios in its last third for
//     that. The tables that keep a history are filled before both. Sizes are taken
//     when all faults are healed and the load goes on, after two collections
//     (pools survive one, and one list of the whole audit log leaves 33 MiB in
//     them) gave memory back, and count after 5 minutes or a tenth of the time:
//     the first third of the rest is compared with the last one, by medians, a
//     process only with itself or with processes of its role that ran about as
//     long.
//   - Memory at like age is what a process has made (RssAnon and RssShmem). Pages
//     of the program and of files (RssFile) are told apart: the kernel brings and
//     takes them. They count where a process is compared with itself: that is all
//     its resident memory (VmRSS).
package chaos
