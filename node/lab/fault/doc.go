// Package fault makes faults on the machine it runs on, and ends them.
//
// Every fault is a record, a file of a directory that does not outlive the
// machine's power, and has a deadline. What the machine suffers is derived
// from the records that are in force, always as a whole, by Converge; so a
// fault is ended by removing its record, whoever does it. Four do, each in
// case the one before could not:
//
//   - the keeper, a process of its own on the machine, at the deadline. It is
//     nobody's child: who began the fault may be gone;
//   - Heal, when somebody asks;
//   - the machine's first process, which sweeps overdue records (Sweep);
//   - the kernel, which forgets the elements of the packet filter's sets at
//     the deadline, and the lying disk, which is told until when it lies.
//
// What can be made: the service killed whenever it runs, the service stopped
// (SIGSTOP), frames of some machines dropped, frames lost at random, a slow
// link, another address, a disk that is full, slow or hung (package lyingfs),
// and, for a binary that was built for it, a wrong clock. What a fault has hit
// is counted; of a clock and an address the service's own word is taken.
package fault
