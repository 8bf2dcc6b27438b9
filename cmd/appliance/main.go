// Command appliance turns a few Linux machines into a production cluster for
// containers. It is also every helper process of a node: which one is decided
// by the environment, before the command line is looked at.
package main

import (
	"os"

	"appliance/cmd/cli"
	"appliance/nfs/mount"
	"appliance/node/agent"
	"appliance/node/lab"
	"appliance/node/priority"
	"appliance/node/runtime/containerd"
)

// version is set by the linker.
var version = "dev"

func main() {
	if role := os.Getenv(agent.AppletEnv); role != "" {
		// A helper process was started by a node, whose raised priority is not
		// for it nor for the containers below it.
		_ = priority.Normal() // a normal one remains if this fails
	} else {
		_ = priority.CalmMonitor() // more CPU is used if this fails
	}
	// Each applet looks whether this execution is meant for it.
	for _, applet := range []func() bool{lab.Applet, agent.Applet, containerd.Applet, mount.Applet} {
		if applet() {
			return
		}
	}
	os.Exit(cli.Main(version, os.Args[1:]))
}
