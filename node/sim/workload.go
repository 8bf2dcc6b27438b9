package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"appliance/node/model"
	"appliance/node/register"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	clients = 6
	keys    = 5
	leases  = 2
	ttl     = 2 * time.Second
)

func propose(ctx context.Context, c core, cmd command.Command) (command.Result, error) {
	raw, err := command.Encode(cmd)
	if err != nil {
		return command.Result{}, err
	}
	_, v, err := c.Propose(ctx, raw)
	if err != nil {
		return command.Result{}, err
	}
	res, ok := v.(command.Result)
	if !ok {
		return command.Result{}, fmt.Errorf("%w: result %T: %v", raft.ErrUnknownOutcome, v, v)
	}
	return res, nil
}

// client is one user of the cluster, which asks any node.
type client struct {
	name    string
	id      int
	rand    *rand.Rand
	cluster *cluster
	history *history

	count int
	seen  map[string]model.KV  // last read or written
	until map[string]time.Time // end of the leases taken
	tasks []string             // launched here and not stopped

	session session
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		m := c.cluster.machines[c.rand.IntN(len(c.cluster.machines))]
		if p := m.running(); p != nil {
			c.step(ctx, p)
		}
		pause(ctx, time.Duration(5+c.rand.IntN(50))*time.Millisecond)
	}
}

func (c *client) step(ctx context.Context, p *process) {
	limit := 2 * time.Second
	if c.rand.IntN(4) == 0 {
		limit = time.Duration(1+c.rand.IntN(100)) * time.Millisecond // an impatient one
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.count++
	switch n := c.rand.IntN(100); {
	case n < 3:
		c.deploy(ctx, p)
	case n < 7:
		c.version(ctx, p, apps[c.rand.IntN(len(apps))])
	case n < 8:
		c.scale(ctx, p)
	case n < 9:
		c.drain(ctx, p)
	case n < 20:
		c.task(ctx, p)
	default:
		c.onKeys(ctx, p)
	}
}

// now is the time of what a client asks a node for, by that node's clock.
func (c *client) now(p *process) time.Time {
	if p.machine == c.cluster.astray {
		c.cluster.did.add(astray)
	}
	return p.machine.clock.now()
}

// onKeys is what a client does on keys, locks and leases.
func (c *client) onKeys(ctx context.Context, p *process) {
	key := fmt.Sprintf("k%d", c.rand.IntN(keys))
	switch c.rand.IntN(16) {
	case 0, 1, 2:
		c.get(ctx, p, key)
	case 3:
		c.write(ctx, p, register.Input{Op: "set", Key: key, Value: c.value()}, 0)
	case 4:
		c.write(ctx, p, register.Input{Op: "delete", Key: key}, 0)
	case 5, 6:
		row := c.seen[key]
		c.write(ctx, p, register.Input{Op: "cas", Key: key, Expect: string(row.Value), Value: c.value()}, row.ModifyIndex)
	case 7, 8, 9, 10, 11:
		c.lock(ctx, p)
	default:
		if p.machine != c.cluster.astray { // its clock is beyond what leases bear
			c.lease(ctx, p)
		}
	}
}

// value is a new one: values tell writes apart.
func (c *client) value() string { return fmt.Sprintf("%s-%d", c.name, c.count) }

func (c *client) get(ctx context.Context, p *process, key string) {
	call := c.history.call()
	if p.core.Linearize(ctx) != nil {
		return
	}
	row := state.KVs.Get(p.store.Snapshot(), key)
	if p.dead.Load() {
		return
	}
	out := register.Output{Known: true}
	if delete(c.seen, key); row != nil {
		out.Value = string(row.Value)
		c.seen[key] = *row
	}
	c.history.kv(c.id, register.Input{Op: "get", Key: key}, call, out)
}

func (c *client) write(ctx context.Context, p *process, in register.Input, index uint64) {
	cmd := &command.KVTxn{Ops: []command.KVOp{{Verb: in.Op, Key: in.Key, Value: []byte(in.Value), Index: index}}}
	call := c.history.call()
	res, err := propose(ctx, p.core, cmd)
	delete(c.seen, in.Key)
	var out register.Output
	var got command.KVTxnResult
	switch {
	case p.dead.Load(): // unknown
	case refused(err):
		c.history.refused.Add(1)
		return
	case err != nil:
	case res.Decode(&got) != nil:
		c.history.fail("%s %s: result %s %v", in.Op, in.Key, res.Value, res.Err)
	default:
		out = register.Output{Known: true, Done: len(got.Errors) == 0}
		if out.Done && in.Op != "delete" && len(got.Results) == 1 {
			row := got.Results[0]
			row.Value = []byte(in.Value)
			c.seen[in.Key] = row
		}
	}
	c.history.kv(c.id, in, call, out)
}

// refused reports whether an error promises that nothing was changed.
func refused(err error) bool {
	return errors.Is(err, raft.ErrNoLeader) && !errors.Is(err, raft.ErrUnknownOutcome)
}
