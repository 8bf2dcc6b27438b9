package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"appliance/node/register"

	"github.com/anishathalye/porcupine"
)

const (
	// epochTime is how long a set of keys is used: a history must be short to
	// be judged.
	epochTime = 12 * time.Second
	epochKeys = 4
	// judgeTime bounds the judgement of one key of one epoch.
	judgeTime = time.Minute
)

// linear keeps the history of a few keys, written and read through all nodes,
// and judges it epoch by epoch.
type linear struct {
	nodes []*node
	wrong *verdicts
	limit time.Duration // for the judgement of one key
	clock atomic.Int64  // orders calls and returns

	mu     sync.Mutex
	epoch  int
	ops    map[int][]porcupine.Operation
	active map[int]int // operations under way
	known  int
}

func newLinear(nodes []*node, wrong *verdicts) *linear {
	return &linear{nodes: nodes, wrong: wrong, limit: judgeTime, ops: map[int][]porcupine.Operation{}, active: map[int]int{}}
}

// client returns one that is used by one goroutine.
func (l *linear) client(id int) func(ctx context.Context) error {
	n := 0
	type version struct {
		index uint64
		value string
	}
	last := map[string]version{} // what this client read, for cas
	return func(ctx context.Context) error {
		n++
		l.mu.Lock()
		epoch := l.epoch
		l.active[epoch]++
		l.mu.Unlock()
		key := fmt.Sprintf("chaos/linear/%d/%d", epoch, rand.IntN(epochKeys))
		in := register.Input{Key: key, Op: "get"}
		seen, ok := last[key]
		method, path, value := http.MethodGet, "/v1/kv/"+key, fmt.Sprintf("%d-%d", id, n)
		switch r := rand.IntN(10); {
		case r < 3:
			in.Op, in.Value, method = "set", value, http.MethodPut
		case r < 6 && ok:
			in.Op, in.Value, in.Expect, method = "cas", value, seen.value, http.MethodPut
			path += fmt.Sprintf("?cas=%d", seen.index)
		}
		call := l.clock.Add(1)
		out, p, err := l.once(ctx, l.nodes[rand.IntN(len(l.nodes))], method, path, in.Value)
		end := l.clock.Add(1)
		if in.Op == "get" && err == nil {
			last[key] = version{p.ModifyIndex, out.Value}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.active[epoch]--
		switch {
		case err == nil:
			l.known++
		case unsent(err) || in.Op == "get":
			return err // it says nothing
		default:
			end = math.MaxInt64
		}
		l.ops[epoch] = append(l.ops[epoch], porcupine.Operation{ClientId: id, Input: in, Call: call, Output: out, Return: end})
		return err
	}
}

func (l *linear) once(ctx context.Context, n *node, method, path, value string) (register.Output, pair, error) {
	text, _, err := n.do(ctx, method, path, value)
	var missing *statusError
	if method == http.MethodGet {
		if errors.As(err, &missing) && missing.code == http.StatusNotFound && strings.TrimSpace(missing.text) == "" {
			return register.Output{Known: true}, pair{}, nil
		}
		var list []pair
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil || len(list) != 1 {
			return register.Output{}, pair{}, errors.Join(err, fmt.Errorf("%d pairs", len(list)))
		}
		return register.Output{Known: true, Value: string(list[0].Value)}, list[0], nil
	}
	if err != nil {
		return register.Output{}, pair{}, err
	}
	switch strings.TrimSpace(string(text)) {
	case "true":
		return register.Output{Known: true, Done: true}, pair{}, nil
	case "false":
		return register.Output{Known: true}, pair{}, nil
	}
	return register.Output{}, pair{}, fmt.Errorf("the write was answered by %.100s", text)
}

// run turns the epochs over and judges each when its last operation is back.
// The last ones are left for when no client works any more.
func (l *linear) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { // a judgement that takes long must not make a history long
		for ctx.Err() == nil {
			l.judge(false)
			pause(ctx, time.Second)
		}
	})
	for ctx.Err() == nil {
		pause(ctx, epochTime)
		l.mu.Lock()
		l.epoch++
		l.mu.Unlock()
		l.clean(ctx)
	}
	group.Wait()
}

// count is the number of operations with a known outcome.
func (l *linear) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

const linearRule = "linearizable keys"

// judge looks at the epochs that are over.
func (l *linear) judge(all bool) {
	l.mu.Lock()
	ready := map[int][]porcupine.Operation{}
	for e, ops := range l.ops {
		if all || e < l.epoch && l.active[e] == 0 {
			ready[e] = ops
			delete(l.ops, e)
			delete(l.active, e)
		}
	}
	l.mu.Unlock()
	for _, ops := range ready {
		for _, part := range register.Model.Partition(ops) {
			l.wrong.check(linearRule, 1)
			switch porcupine.CheckOperationsTimeout(register.Model, part, l.limit) {
			case porcupine.Illegal:
				l.wrong.violate(linearRule, "%s", tell(part))
			case porcupine.Unknown:
				l.wrong.violate(linearRule, "a history of %d operations could not be judged in %s", len(part), l.limit)
			}
		}
	}
}

// clean removes the keys of old epochs: nobody uses them any more.
func (l *linear) clean(ctx context.Context) {
	l.mu.Lock()
	old := l.epoch - 3
	l.mu.Unlock()
	if old < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, kvTime)
	defer cancel()
	// It does not matter if it fails: the next run's keys have other values.
	_, _, _ = l.nodes[rand.IntN(len(l.nodes))].do(ctx, http.MethodDelete, fmt.Sprintf("/v1/kv/chaos/linear/%d/?recurse", old), "")
}

func tell(ops []porcupine.Operation) string {
	text := "the history of this key cannot be:"
	for _, o := range ops {
		text += fmt.Sprintf("\n\t%d..%d client %d: %+v -> %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	return text
}
