//go:build tools

// Package mesosgo names the programs of mesos-go that the tests build.
package mesosgo

import (
	_ "github.com/mesos/mesos-go/api/v1/cmd/example-scheduler"
	_ "github.com/mesos/mesos-go/api/v1/cmd/msh"
	_ "github.com/prometheus/client_golang/prometheus"
)
