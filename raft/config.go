package raft

import (
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

func (n *Node) raftConfig(log hclog.Logger) *hraft.Config {
	c := hraft.DefaultConfig()
	c.LocalID = hraft.ServerID(n.conf.ID)
	c.HeartbeatTimeout = lonelyTimeout
	c.ElectionTimeout = lonelyTimeout
	c.LeaderLeaseTimeout = electionTimeout
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = maxAppend
	c.BatchApplyCh = true
	c.TrailingLogs = trailingLogs
	c.SnapshotThreshold = n.conf.SnapshotEntries
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 16384
	}
	if n.conf.TrailingEntries > 0 {
		c.TrailingLogs = n.conf.TrailingEntries
	}
	c.SnapshotInterval = 30 * time.Second
	c.NotifyCh = n.lead.notify
	c.Logger = log
	c.NoLegacyTelemetry = true
	return c
}
