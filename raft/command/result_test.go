package command

import (
	"reflect"
	"testing"

	"appliance/raft/state"
)

// The result of a KV transaction is the same for a proposer that reads it from
// its own machine, one that gets it from another node, and after a snapshot.
func TestKVResultTravels(t *testing.T) {
	tests := []struct {
		name string
		ops  []KVOp
	}{
		{"set", []KVOp{{Verb: "set", Key: "a", Value: []byte("v"), Flags: 7}}},
		{"read", []KVOp{{Verb: "set", Key: "a", Value: []byte("v")}, {Verb: "get", Key: "a"}, {Verb: "get-or-empty", Key: "b"}}},
		{"delete", []KVOp{{Verb: "delete", Key: "a"}}},
		{"refused", []KVOp{{Verb: "set", Key: "a"}, {Verb: "check-not-exists", Key: "a"}}},
		{"nothing", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMachine(state.New())
			raw, err := Encode(&KVTxn{Ops: tt.ops})
			if err != nil {
				t.Fatal(err)
			}
			here, ok := m.Apply(9, 1, raw).(Result)
			if !ok || here.Index != 9 {
				t.Fatalf("result %v", here)
			}
			var own, far KVTxnResult
			if err := here.Decode(&own); err != nil {
				t.Fatal(err)
			}
			wire, err := m.EncodeResult(here)
			if err != nil {
				t.Fatal(err)
			}
			there, err := m.DecodeResult(wire)
			if err != nil {
				t.Fatal(err)
			}
			if err := there.(Result).Decode(&far); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(own, far) || len(own.Results)+len(own.Errors) == 0 && tt.name != "delete" && tt.name != "nothing" {
				t.Errorf("here %+v, there %+v", own, far)
			}
			again, err := m.EncodeResult(there)
			if err != nil || string(again) != string(wire) {
				t.Errorf("%s, once more %s: %v", wire, again, err)
			}
		})
	}
}
