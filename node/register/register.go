// Package register models a key of the store, by which histories of clients are
// judged: is there an order of all operations in which each took effect between
// its call and its return?
package register

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anishathalye/porcupine"
)

// Input is an operation on one key: get, set, delete or cas. cas expects a
// value: values are unique, so they tell versions apart.
type Input struct{ Op, Key, Expect, Value string }

// Output is what came of it; Known is false if the client never learned that.
type Output struct {
	Known, Done bool
	Value       string // of get
}

// Model is one key. The state is its value, "" if there is none.
var Model = porcupine.Model{
	Partition: Partition(func(in any) string { return in.(Input).Key }),
	Init:      func() any { return "" },
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(string), input.(Input), output.(Output)
		switch in.Op {
		case "get":
			return out.Value == at, at
		case "set", "delete":
			return !out.Known || out.Done, in.Value
		default: // cas
			fits := at == in.Expect
			if out.Known && out.Done != fits {
				return false, at
			}
			if fits {
				return true, in.Value
			}
			return true, at
		}
	},
	DescribeOperation: Describe,
}

// Partition cuts a history into parts that do not concern each other, in the
// order of their keys.
func Partition(key func(input any) string) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(ops []porcupine.Operation) (out [][]porcupine.Operation) {
		parts := map[string][]porcupine.Operation{}
		for _, o := range ops {
			parts[key(o.Input)] = append(parts[key(o.Input)], o)
		}
		for _, k := range slices.Sorted(maps.Keys(parts)) {
			out = append(out, parts[k])
		}
		return out
	}
}

// Describe is an operation in words.
func Describe(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) }
