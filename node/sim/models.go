package sim

import (
	"github.com/anishathalye/porcupine"

	"appliance/node/register"
)

// releaseInput is a new release of an app, or a look at its newest one.
type releaseInput struct{ op, app string }

// releaseOutput is what came of it; known is false if the client never learned that.
type releaseOutput struct {
	known   bool
	version uint64
}

// releases counts the releases of one app: none is lost, none is made twice.
var releases = porcupine.Model{
	Partition: register.Partition(func(in any) string { return in.(releaseInput).app }),
	Init:      func() any { return uint64(1) }, // made when all was set up
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(uint64), input.(releaseInput), output.(releaseOutput)
		if in.op == "read" {
			return out.version == at, at
		}
		return !out.known || out.version == at+1, at + 1
	},
	DescribeOperation: register.Describe,
}
