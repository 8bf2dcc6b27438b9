package register

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

func TestModel(t *testing.T) {
	done := Output{Known: true, Done: true}
	set := func(at int64, v string) porcupine.Operation {
		return porcupine.Operation{Input: Input{Op: "set", Key: "k", Value: v}, Output: done, Call: at, Return: at + 1}
	}
	get := func(at int64, v string) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: Input{Op: "get", Key: "k"}, Output: Output{Known: true, Value: v}, Call: at, Return: at + 1}
	}
	cas := func(at int64, expect, v string, done bool) porcupine.Operation {
		return porcupine.Operation{ClientId: 2, Input: Input{Op: "cas", Key: "k", Expect: expect, Value: v}, Output: Output{Known: true, Done: done}, Call: at, Return: at + 1}
	}
	unknown, other := set(0, "1"), get(2, "")
	unknown.Output, unknown.Return, other.Input = Output{}, 99, Input{Op: "get", Key: "other"}
	for name, tt := range map[string]struct {
		ops []porcupine.Operation
		ok  bool
	}{
		"read back":              {[]porcupine.Operation{set(0, "1"), get(2, "1")}, true},
		"lost":                   {[]porcupine.Operation{set(0, "1"), get(2, "")}, false},
		"another key":            {[]porcupine.Operation{set(0, "1"), other}, true},
		"old after new":          {[]porcupine.Operation{set(0, "1"), set(2, "2"), get(4, "1")}, false},
		"cas":                    {[]porcupine.Operation{set(0, "1"), cas(2, "1", "2", true), get(4, "2")}, true},
		"cas of another version": {[]porcupine.Operation{set(0, "1"), cas(2, "0", "2", true)}, false},
		"cas that should do":     {[]porcupine.Operation{set(0, "1"), cas(2, "1", "2", false)}, false},
		"unknown, took place":    {[]porcupine.Operation{unknown, get(2, "1")}, true},
		"unknown, did not":       {[]porcupine.Operation{unknown, get(2, "")}, true},
		"unknown, undone":        {[]porcupine.Operation{unknown, get(2, "1"), get(4, "")}, false},
	} {
		if got := porcupine.CheckOperations(Model, tt.ops); got != tt.ok {
			t.Errorf("%s: %v, want %v", name, got, tt.ok)
		}
	}
}
