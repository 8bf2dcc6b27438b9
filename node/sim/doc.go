// Package sim runs a whole control plane in simulated time: four masters, of which three vote, and
// three agents with the real raft, command, state, feed, gossip (memberlist), autopilot, scheduler, agent and
// reaper of sessions, under a workload and faults that follow from a seed: masters are also wiped, removed
// and replaced. Checkers then judge the history. It is of use to tests only.
//
// Real: hashicorp/raft and memberlist unmodified, raft-wal with its segments, the agents' checkpoints
// (bbolt). Simulated: the network (streams; packets with loss, delay, reordering, duplicates), the file
// system below raft-wal (a crash tears what was not synced, sector by sector), its metadata and the
// snapshot store (atomic), wall clocks that differ, the container runtime (runtime/fake). Not in it: TLS,
// the proxies, DNS, volumes, the registry, changes of address, and package node itself. The real
// files below raft-wal are cut by raft.TestPowerCutWhileTheLogIsWritten.
//
// Leases hold as long as two clocks differ by no more than command.LeaseSkew and holders stop at
// TakeLease.HeldUntil. Everything else bears any clock, locks of sessions too.
//
// A seed decides faults and workload, but not how goroutines are scheduled, nor the random numbers of
// the engines: a failing seed has to be run a few times, as the line that it prints does. State machines
// without goroutines replay exactly: command.TestEveryLogReplaysExactly.
package sim
