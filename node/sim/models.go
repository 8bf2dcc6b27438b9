package sim

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// partition cuts a history into parts that do not concern each other.
func partition(key func(input any) string) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(ops []porcupine.Operation) [][]porcupine.Operation {
		parts := map[string][]porcupine.Operation{}
		for _, o := range ops {
			parts[key(o.Input)] = append(parts[key(o.Input)], o)
		}
		var out [][]porcupine.Operation
		for _, part := range parts {
			out = append(out, part)
		}
		return out
	}
}

// kvInput is an operation on one key. cas expects a value: values are unique, so they tell versions apart.
type kvInput struct{ op, key, expect, value string }

// kvOutput is what came of it; known is false if the client never learned that.
type kvOutput struct {
	known, done bool
	value       string // of get
}

// register is one key of the store. The state is its value, "" if there is none.
var register = porcupine.Model{
	Partition: partition(func(in any) string { return in.(kvInput).key }),
	Init:      func() any { return "" },
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(string), input.(kvInput), output.(kvOutput)
		switch in.op {
		case "get":
			return out.value == at, at
		case "set", "delete":
			return !out.known || out.done, in.value
		default: // cas
			fits := at == in.expect
			if out.known && out.done != fits {
				return false, at
			}
			if fits {
				return true, in.value
			}
			return true, at
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}

// releaseInput is a new release of an app, or a look at its newest one.
type releaseInput struct{ op, app string }

// releaseOutput is what came of it; known is false if the client never learned that.
type releaseOutput struct {
	known   bool
	version uint64
}

// releases counts the releases of one app: none is lost, none is made twice.
var releases = porcupine.Model{
	Partition: partition(func(in any) string { return in.(releaseInput).app }),
	Init:      func() any { return uint64(1) }, // made when all was set up
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(uint64), input.(releaseInput), output.(releaseOutput)
		if in.op == "read" {
			return out.version == at, at
		}
		return !out.known || out.version == at+1, at + 1
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}
