// Package sim runs a whole control plane in simulated time: three masters and two followers of the feed
// with the real raft, command and state code, on a simulated network and simulated disks, under a workload
// and faults that follow from a seed. Checkers then judge the history. It is of use to tests only.
package sim
