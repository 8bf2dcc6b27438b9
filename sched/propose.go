package sched

import (
	"context"

	"appliance/raft/command"
)

const (
	// maxBatch is how many placements, or ids, go into one entry.
	maxBatch = 1000
	// batchBytes bounds the encoded commands of one entry; base64 inside the
	// entry makes it a third more, still well under command.MaxSize.
	batchBytes = 512 << 10
)

// propose commits the commands in order, many per entry. A refused one is the
// state's answer to something that has changed meanwhile: the next round sees
// why. Only a proposal that does not get through is an error.
func (t *term) propose(ctx context.Context, commands []command.Command) error {
	var batch command.Batch
	size := 0
	flush := func() error {
		if len(batch.Commands) == 0 {
			return nil
		}
		_, err := t.commit(ctx, &batch)
		batch, size = command.Batch{}, 0
		return err
	}
	for _, c := range commands {
		raw, err := command.Encode(c)
		if err != nil {
			return err
		}
		if size+len(raw) > batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		batch.Commands, size = append(batch.Commands, raw), size+len(raw)
	}
	return flush()
}

func (t *term) commit(ctx context.Context, c command.Command) (command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	res, err := t.Proposer.Propose(ctx, c)
	if err != nil && isRefusal(err) {
		t.Log.Debug("a proposal of the scheduler was refused", "err", err)
		return res, nil
	}
	return res, err
}

// place commits placements in entries of bounded size and counts those that
// were refused. Explanations travel with the first one.
func (t *term) place(ctx context.Context, p *command.Place) (refused int, err error) {
	rest := p.Placements
	for first := true; len(rest) > 0 || first && len(p.Waiting)+len(p.Clear) > 0; first = false {
		n := min(len(rest), maxBatch)
		part := &command.Place{Placements: rest[:n]}
		rest = rest[n:]
		if err := t.placePart(ctx, part, &refused); err != nil {
			return refused, err
		}
		if first {
			if err := t.tell(ctx, p); err != nil {
				return refused, err
			}
		}
	}
	return refused, nil
}

func (t *term) placePart(ctx context.Context, part *command.Place, refused *int) error {
	if len(part.Placements) == 0 {
		return nil
	}
	res, err := t.commit(ctx, part)
	if err != nil {
		return err
	}
	var placed command.Placed
	if res.Err == nil && res.Decode(&placed) == nil {
		*refused += len(placed.Refused)
	}
	return nil
}

// tell commits the explanations, few apps per entry: each has up to
// MaxRefusals lines.
func (t *term) tell(ctx context.Context, p *command.Place) error {
	const apps = 50
	waiting, clear := p.Waiting, p.Clear
	for len(waiting)+len(clear) > 0 {
		n, m := min(len(waiting), apps), min(len(clear), maxBatch)
		if _, err := t.commit(ctx, &command.Place{Waiting: waiting[:n], Clear: clear[:m]}); err != nil {
			return err
		}
		waiting, clear = waiting[n:], clear[m:]
	}
	return nil
}
