//go:build !nextlevel

package command

import "appliance/raft/state"

// Speaks is the protocol level of this binary: it applies every command, field and table up to this
// level. It grows by one with a release that adds any.
const Speaks = 2

// future are the commands of the next level: none yet.
var future []Command

func init() { state.Reads(Speaks) }
