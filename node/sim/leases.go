package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"appliance/node/model"
	"appliance/node/register"
	"appliance/raft/command"
	"appliance/raft/state"
)

// row is a lease as the state has it. The zero row is one that nobody ever took.
type row struct {
	holder  string
	epoch   uint64
	expires int64 // nanoseconds since epoch; 0 if it was given up
}

// leaseInput is an operation on a lease: take, release or read.
type leaseInput struct {
	op, name, holder string
	at               time.Duration // take: the proposer's clock, since epoch
	expires          int64         // release: the end of the lease that is given up
}

// leaseOutput is what came of it; known is false if the client never learned that.
type leaseOutput struct {
	known bool
	held  bool // take: somebody else has it
	row   row  // take, read: what it is now
}

// take is command.TakeLease of protocol level 2, written down once more: whether it is given, and what the
// lease is then.
func (l row) take(in leaseInput) (row, bool) {
	end := int64(in.at + ttl)
	switch {
	case l.holder != in.holder && l.expires != 0 && int64(in.at) < l.expires:
		return l, false
	case l.holder != in.holder:
		return row{in.holder, l.epoch + 1, end}, true
	}
	return row{in.holder, l.epoch, max(end, l.expires+1)}, true // never shorter, and never the same end
}

// leaseModel is one lease: nobody gets it while it is another's, and what its holder was promised stays.
var leaseModel = porcupine.Model{
	Partition: register.Partition(func(in any) string { return in.(leaseInput).name }),
	Init:      func() any { return row{} },
	Step: func(st, input, output any) (bool, any) {
		at, in, out := st.(row), input.(leaseInput), output.(leaseOutput)
		switch in.op {
		case "read":
			return out.row == at, at
		case "release": // it has no answer
			if at.holder == in.holder && at.expires == in.expires {
				at.expires = 0
			}
			return true, at
		default:
			next, given := at.take(in)
			return !out.known || out.held != given && (!given || out.row == next), next
		}
	},
	DescribeOperation: register.Describe,
}

func rowOf(l *model.Lease) (out row) {
	if l != nil {
		out = row{holder: l.Holder, epoch: l.Epoch}
		if !l.Expires.IsZero() {
			out.expires = int64(at(l.Expires))
		}
	}
	return out
}

// lease takes a lease under the client's name, gives it up, or looks at it.
func (c *client) lease(ctx context.Context, p *process) {
	name := fmt.Sprintf("l%d", c.rand.IntN(leases))
	switch n := c.rand.IntN(6); {
	case n < 1:
		c.look(ctx, p, name)
	case n < 3:
		c.giveUp(ctx, p, name)
	default:
		c.take(ctx, p, name)
	}
}

func (c *client) look(ctx context.Context, p *process, name string) {
	call := c.history.call()
	if p.core.Linearize(ctx) != nil {
		return
	}
	if out := rowOf(state.Leases.Get(p.store.Snapshot(), name)); !p.dead.Load() {
		c.history.lease(c.id, leaseInput{op: "read", name: name}, call, leaseOutput{known: true, row: out})
	}
}

func (c *client) giveUp(ctx context.Context, p *process, name string) {
	until := c.until[name]
	if until.IsZero() {
		return // a release that names no lease ends any, however late it comes
	}
	c.history.released(name, c.name)
	call := c.history.call()
	res, err := propose(ctx, p.core, &command.ReleaseLease{Name: name, Holder: c.name, Expires: until})
	switch {
	case refused(err) && !p.dead.Load():
		return
	case err == nil && res.Err != nil:
		c.history.fail("release of lease %s: %v", name, res.Err)
	}
	in := leaseInput{op: "release", name: name, holder: c.name, expires: int64(at(until))}
	c.history.lease(c.id, in, call, leaseOutput{known: err == nil && !p.dead.Load()})
}

func (c *client) take(ctx context.Context, p *process, name string) {
	asked, call := time.Now(), c.history.call()
	cmd := &command.TakeLease{Name: name, Holder: c.name, At: p.machine.clock.now(), TTL: ttl}
	in := leaseInput{op: "take", name: name, holder: c.name, at: at(cmd.At)}
	res, err := propose(ctx, p.core, cmd)
	var got model.Lease
	var out leaseOutput
	switch {
	case p.dead.Load(): // unknown
	case refused(err):
		c.history.refused.Add(1)
		return
	case err != nil:
	case res.Err != nil && res.Err.Code == model.CodeConflict:
		out = leaseOutput{known: true, held: true}
	case res.Decode(&got) != nil:
		c.history.fail("lease %s: result %s %v", name, res.Value, res.Err)
	default:
		out = leaseOutput{known: true, row: rowOf(&got)}
		c.until[name] = got.Expires
		c.history.held(name, c.name, cmd.HeldUntil(asked))
	}
	c.history.lease(c.id, in, call, out)
}
