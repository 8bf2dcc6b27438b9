package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/node/register"
)

// busy is a history with enough in it, and nothing wrong.
func busy() *history {
	h := newHistory()
	h.did = map[effect]int{}
	for i := range 200 {
		h.kv(0, register.Input{Op: "get", Key: "quiet"}, h.call(), register.Output{Known: true})
		h.release(0, releaseInput{"read", "quiet"}, h.call(), releaseOutput{known: true, version: 1})
		h.lease(0, leaseInput{op: "read", name: "quiet"}, h.call(), leaseOutput{known: true})
		h.owner(fmt.Sprint(i), "s1")
	}
	for _, e := range slices.Concat(networkFaults, diskFaults, machineFaults) {
		h.did[e] = 50
	}
	h.changes[upheavals[0].name]++
	h.worked, h.led, h.moves, h.compared = 8, 2, 3, 5
	for i := range beliefs {
		h.beliefs = append(h.beliefs, belief{"l", "a", second(i), second(i + 1)}, belief{lockPrefix, "a", second(i), second(i + 1)})
	}
	return h
}

const beliefs = 10

func second(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

func TestJudgeFindsWhatIsWrong(t *testing.T) {
	put := func(h *history, value string, out register.Output) {
		h.kv(1, register.Input{Op: "set", Key: "k", Value: value}, h.call(), out)
	}
	get := func(h *history, value string) {
		h.kv(2, register.Input{Op: "get", Key: "k"}, h.call(), register.Output{Known: true, Value: value})
	}
	cas := func(h *history, expect, value string, done bool) {
		h.kv(3, register.Input{Op: "cas", Key: "k", Expect: expect, Value: value}, h.call(), register.Output{Known: true, Done: done})
	}
	// take asks for l at a second; until is the end that it is told, 0 if somebody else has it, -1 if the client
	// learns nothing.
	take := func(h *history, holder string, at, until int, epoch uint64) {
		out := leaseOutput{known: until >= 0, held: until == 0}
		if until > 0 {
			out.row = row{holder, epoch, int64(time.Duration(until) * time.Second)}
		}
		h.lease(1, leaseInput{op: "take", name: "l", holder: holder, at: time.Duration(at) * time.Second}, h.call(), out)
	}
	giveUp := func(h *history, holder string, until int, known bool) {
		h.lease(1, leaseInput{op: "release", name: "l", holder: holder, expires: int64(time.Duration(until) * time.Second)}, h.call(), leaseOutput{known: known})
	}
	look := func(h *history, l row) {
		h.lease(2, leaseInput{op: "read", name: "l"}, h.call(), leaseOutput{known: true, row: l})
	}
	sec := func(s int) int64 { return int64(time.Duration(s) * time.Second) }
	done := register.Output{Known: true, Done: true}
	for name, c := range map[string]struct {
		add  func(h *history)
		want string // "" if all is well
	}{
		"nothing":                     {func(*history) {}, ""},
		"a lost write":                {func(h *history) { put(h, "1", done); get(h, "") }, "not linearizable"},
		"an old read":                 {func(h *history) { put(h, "1", done); put(h, "2", done); get(h, "1") }, "not linearizable"},
		"unknown, took place":         {func(h *history) { put(h, "1", register.Output{}); get(h, "1") }, ""},
		"unknown, did not":            {func(h *history) { put(h, "1", register.Output{}); get(h, "") }, ""},
		"unknown, late":               {func(h *history) { put(h, "1", register.Output{}); get(h, ""); get(h, "1") }, ""},
		"unknown, undone":             {func(h *history) { put(h, "1", register.Output{}); get(h, "1"); get(h, "") }, "not linearizable"},
		"a swap that must do":         {func(h *history) { put(h, "1", done); cas(h, "1", "2", false) }, "not linearizable"},
		"two swaps of one":            {func(h *history) { put(h, "1", done); cas(h, "1", "2", true); cas(h, "1", "3", true) }, "not linearizable"},
		"two holders":                 {func(h *history) { h.beliefs = append(h.beliefs, belief{"l", "b", second(3).Add(1), second(4)}) }, "two holders"},
		"a holder after":              {func(h *history) { h.beliefs = append(h.beliefs, belief{"l", "b", second(beliefs), second(99)}) }, ""},
		"a lease after another":       {func(h *history) { take(h, "a", 1, 3, 1); take(h, "b", 2, 0, 0); take(h, "b", 3, 5, 2) }, ""},
		"a lease that is held":        {func(h *history) { take(h, "a", 1, 3, 1); take(h, "b", 2, 4, 2) }, "leases is not linearizable"},
		"a lease refused for nothing": {func(h *history) { take(h, "a", 1, 3, 1); take(h, "b", 3, 0, 0) }, "leases is not linearizable"},
		"a lease given up":            {func(h *history) { take(h, "a", 1, 3, 1); giveUp(h, "a", 3, true); take(h, "b", 1, 3, 2) }, ""},
		"a lease of another given up": {func(h *history) { take(h, "a", 1, 3, 1); giveUp(h, "b", 3, true); take(h, "b", 2, 4, 2) }, "leases is not linearizable"},
		"an old lease given up": {func(h *history) {
			take(h, "a", 1, 3, 1)
			take(h, "a", 2, 4, 1)
			giveUp(h, "a", 3, true)
			take(h, "b", 3, 5, 2)
		}, "leases is not linearizable"},
		"a lease, maybe given up":     {func(h *history) { take(h, "a", 1, 3, 1); giveUp(h, "a", 3, false); take(h, "b", 2, 4, 2) }, ""},
		"a lease, maybe not given up": {func(h *history) { take(h, "a", 1, 3, 1); giveUp(h, "a", 3, false); take(h, "b", 2, 0, 0) }, ""},
		"a lease, maybe taken":        {func(h *history) { take(h, "a", 1, -1, 0); take(h, "b", 2, 0, 0) }, ""},
		"a lease, maybe not taken":    {func(h *history) { take(h, "a", 1, -1, 0); take(h, "b", 2, 4, 1) }, ""},
		"a lease kept by nobody":      {func(h *history) { take(h, "a", 1, -1, 0); take(h, "b", 3, 0, 0) }, "leases is not linearizable"},
		"a lease made shorter":        {func(h *history) { take(h, "a", 2, 4, 1); take(h, "a", 1, 3, 1) }, "leases is not linearizable"},
		"an end given twice":          {func(h *history) { take(h, "a", 2, 4, 1); take(h, "a", 2, 4, 1) }, "leases is not linearizable"},
		"an epoch given twice":        {func(h *history) { take(h, "a", 1, 3, 1); take(h, "b", 3, 5, 1) }, "leases is not linearizable"},
		"a lease read":                {func(h *history) { take(h, "a", 1, 3, 1); look(h, row{"a", 1, sec(3)}) }, ""},
		"a lease read late":           {func(h *history) { take(h, "a", 1, 3, 1); take(h, "a", 2, 4, 1); look(h, row{"a", 1, sec(3)}) }, "leases is not linearizable"},
		"a lease lost":                {func(h *history) { take(h, "a", 1, 3, 1); look(h, row{}) }, "leases is not linearizable"},
		"no operations on leases":     {func(h *history) { h.leases = nil }, "meaningless"},
		"no locks": {func(h *history) {
			h.beliefs = slices.DeleteFunc(h.beliefs, func(b belief) bool { return b.lease == lockPrefix })
		}, "meaningless"},
		"two owners":       {func(h *history) { h.owner("t", "s1"); h.owner("t", "s2") }, "is on s1 and on s2"},
		"no releases":      {func(h *history) { h.apps = nil }, "meaningless"},
		"no tasks":         {func(h *history) { clear(h.owners) }, "meaningless"},
		"nothing compared": {func(h *history) { h.compared = 0 }, "meaningless"},
		"no faults":        {func(h *history) { clear(h.did) }, "meaningless"},
		"none of disks": {func(h *history) {
			for _, e := range diskFaults {
				delete(h.did, e)
			}
		}, "meaningless"},
		"one kind of faults of the network": {func(h *history) {
			for _, e := range networkFaults[1:] {
				delete(h.did, e)
			}
		}, "meaningless"},
		"no fault works": {func(h *history) { h.worked = 0 }, "meaningless"},
		"nobody killed":  {func(h *history) { delete(h.did, killed); delete(h.did, powerless) }, "meaningless"},
		"one leader":     {func(h *history) { h.led = 1 }, "meaningless"},
		"no changes":     {func(h *history) { h.moves = 0 }, "meaningless"},
		"no upheaval":    {func(h *history) { delete(h.changes, upheavals[0].name) }, "meaningless"},
		"no traffic":     {func(h *history) { h.ops = nil }, "meaningless"},
	} {
		t.Run(name, func(t *testing.T) {
			h := busy()
			c.add(h)
			got := strings.Join(h.judge(), "\n")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("judged %q, want %q", got, c.want)
			}
		})
	}
}
