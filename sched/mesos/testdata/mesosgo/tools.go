//go:build tools

package mesosgo

import _ "github.com/mesos/mesos-go/api/v1/cmd/example-scheduler"
