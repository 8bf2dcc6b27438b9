package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// Secure implements registry.Blobs. It returns once a majority of the masters
// has the blob verified on disk; copies to the rest go on in the background.
// blob.ErrUnknown: no master has it and neither has this node.
// blob.ErrUnavailable: too few masters can be reached; nothing is lost.
func (s *Service) Secure(ctx context.Context, d ref.Digest) (blob.Info, error) {
	if s.isSecured(d) {
		if info, err := s.Stat(ctx, d); err == nil {
			return info, nil
		}
	}
	masters := s.Masters()
	if len(masters) == 0 {
		return blob.Info{}, fmt.Errorf("%w: no master is known", blob.ErrUnavailable)
	}
	type result struct {
		size int64
		err  error
	}
	results := make(chan result, len(masters))
	for _, m := range masters {
		if !s.spawn(func() {
			size, err := s.secureAt(m, d)
			results <- result{size, err}
		}) {
			return blob.Info{}, errStopped
		}
	}
	need := len(masters)/2 + 1
	var failures []error
	info := blob.Info{Digest: d}
	for have := 0; have+len(failures) < len(masters); {
		select {
		case r := <-results:
			if r.err != nil {
				failures = append(failures, r.err)
				break
			}
			info.Size = r.size
			if have++; have >= need {
				s.markSecured(d)
				return info, nil
			}
		case <-ctx.Done():
			return blob.Info{}, ctx.Err()
		}
		if len(failures) > len(masters)-need {
			return blob.Info{}, s.refusal(d, len(masters), need, failures)
		}
	}
	return blob.Info{}, s.refusal(d, len(masters), need, failures)
}

// refusal keeps the kind of a failure that trying again does not cure: a blob
// that a majority has never seen (see search.next), disks that are full.
func (s *Service) refusal(d ref.Digest, masters, need int, failures []error) error {
	all := errors.Join(failures...)
	full := 0
	for _, err := range failures {
		if errors.Is(err, blob.ErrUnknown) {
			return err
		}
		if errors.Is(err, blob.ErrNoSpace) {
			full++
		}
	}
	if full == len(failures) {
		return fmt.Errorf("%w on %d of %d masters, %d copies of %s are needed: %s", blob.ErrNoSpace, full, masters, need, d, all)
	}
	// %s: the kinds of the parts must not speak for the whole.
	return fmt.Errorf("%w: %d of %d masters must store %s, but %d could not: %s (the push can be repeated when they are back)",
		blob.ErrUnavailable, need, masters, d, len(failures), all)
}

// secureAt makes sure that one master has the blob.
func (s *Service) secureAt(m Master, d ref.Digest) (int64, error) {
	if m.Self {
		return s.ensureLocal(d)
	}
	size, err := s.askHead(s.ctx, m, d)
	if !errors.Is(err, blob.ErrUnknown) {
		return size, err
	}
	if size, err = s.ensureLocal(d); err != nil {
		return 0, err
	}
	return size, s.putTo(m, d)
}

// ensureLocal returns the size of the local copy, fetching it if need be.
func (s *Service) ensureLocal(d ref.Digest) (int64, error) {
	if s.Store.Touch(d) == nil {
		if info, err := s.Store.Stat(d); err == nil {
			return info.Size, nil
		}
	}
	f, err := s.fill(d)
	if err != nil {
		return 0, err
	}
	select {
	case <-f.done:
		return f.size, f.err
	case <-s.ctx.Done():
		return 0, errStopped
	}
}

func (s *Service) isSecured(d ref.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.secured[d]) < securedFor
}

func (s *Service) markSecured(d ref.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.secured) >= maxSecured {
		clear(s.secured)
	}
	s.secured[d] = time.Now()
}
