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
// TakeLease.HeldUntil: nobody uses a lease by a clock that is further off. Everything else bears any clock, locks
// of sessions and the scheduler too: in every second run one machine's is wrong by a minute to six hours.
//
// A machine that is paused hears and sends nothing, its kernel acknowledges and keeps packets; its writes last
// until the pause ends, and what clients, scheduler, agent and the others propose or read there stands still, with
// its answer. What goes on, because a bubble has one clock: timers of raft, memberlist and HTTP/2, the agent's
// work on its containers, entries that are already in the log being applied.
//
// Faults count by what they did: frames stopped, packets lost, writes refused, and so on. A run with too little of
// that, of traffic or of leaders is an error, and so are twenty runs together that lack one effect.
//
// A seed decides faults and workload, but not how goroutines are scheduled, nor the random numbers of
// the engines: a seed that fails is run three times more, and the line that it prints tells how many of them failed,
// too. State machines without goroutines replay exactly: command.TestEveryLogReplaysExactly.
package sim
