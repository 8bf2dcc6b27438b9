package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Candidate is one engine that could be chosen.
type Candidate struct {
	Name string
	// Automatic candidates are tried when the operator names none; the others
	// must be asked for.
	Automatic bool
	// Probe tells why the engine would do ("socket … answers"), or why not.
	Probe func(ctx context.Context) (why string, err error)
	Open  func(ctx context.Context) (Runtime, error)
}

// Choose opens the engine named by flag, or, when flag is empty or "auto",
// the first automatic candidate whose probe succeeds. The second result is a
// sentence for the first log line. A named engine is never replaced by
// another: the operator meant it.
func Choose(ctx context.Context, flag string, candidates []Candidate) (Runtime, string, error) {
	if flag != "" && flag != "auto" {
		return chooseNamed(ctx, flag, candidates)
	}
	var refused []error
	for _, c := range candidates {
		if !c.Automatic {
			continue
		}
		why, err := c.Probe(ctx)
		if err != nil {
			refused = append(refused, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		rt, err := c.Open(ctx)
		if err != nil {
			return nil, "", fmt.Errorf("open runtime %s (%s): %w", c.Name, why, err)
		}
		return rt, why, nil
	}
	return nil, "", &Error{Kind: ErrUnavailable, What: "choose a container runtime", Why: errors.Join(refused...),
		Do: "start Docker, or run as root to use the embedded one, or name one with --runtime"}
}

func chooseNamed(ctx context.Context, name string, candidates []Candidate) (Runtime, string, error) {
	var names []string
	for _, c := range candidates {
		names = append(names, c.Name)
		if c.Name != name {
			continue
		}
		if _, err := c.Probe(ctx); err != nil {
			return nil, "", &Error{Kind: ErrUnavailable, What: "runtime " + name + ", chosen by flag", Why: err}
		}
		rt, err := c.Open(ctx)
		if err != nil {
			return nil, "", fmt.Errorf("open runtime %s, chosen by flag: %w", name, err)
		}
		return rt, "chosen by flag", nil
	}
	return nil, "", fmt.Errorf("unknown runtime %q: want one of %s", name, strings.Join(names, ", "))
}
