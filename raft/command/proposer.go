package command

import "context"

// Proposer commits commands. On every node one exists that reaches the leader,
// wherever it is. Propose returns after the command is committed and applied
// here; the error is the transport's, a refusal is in Result.Err.
type Proposer interface {
	Propose(ctx context.Context, c Command) (Result, error)
}

// Do proposes and folds a refusal into the error.
func Do(ctx context.Context, p Proposer, c Command) (Result, error) {
	res, err := p.Propose(ctx, c)
	if err != nil {
		return res, err
	}
	if res.Err != nil {
		return res, res.Err
	}
	return res, nil
}
