package peer

import (
	"context"
	"errors"
	"fmt"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// holder is a master that has the blob.
type holder struct {
	Master
	size int64
}

// search asks all other masters at once and yields the holders in the order
// of their answers: the nearest and least loaded comes first, and a dead one
// delays nobody.
type search struct {
	d       ref.Digest
	answers chan answer
	left    int
	unknown int   // masters without it, this one included
	need    int   // majority
	silent  error // why some master did not answer, if so
	stop    context.CancelFunc
}

type answer struct {
	holder
	err error
}

func (s *Service) locate(ctx context.Context, d ref.Digest) (*search, error) {
	masters := s.Masters()
	ctx, cancel := context.WithCancel(ctx)
	q := &search{d: d, answers: make(chan answer, len(masters)), need: len(masters)/2 + 1, stop: cancel}
	for _, m := range masters {
		if m.Self {
			q.unknown++ // else nobody would search
			continue
		}
		ask := func() {
			size, err := s.askHead(ctx, m, d)
			q.answers <- answer{holder{m, size}, err}
		}
		if !s.spawn(ask) {
			cancel()
			return nil, errStopped
		}
		q.left++
	}
	return q, nil
}

// next returns the next holder. At the end it returns blob.ErrUnknown if a
// majority of the masters does not have the blob (then no push of it was ever
// acknowledged), else blob.ErrUnavailable. If hasty, that majority is enough
// to stop asking.
func (q *search) next(ctx context.Context, hasty bool) (holder, error) {
	for q.left > 0 && !(hasty && q.unknown >= q.need) {
		select {
		case a := <-q.answers:
			q.left--
			switch {
			case a.err == nil:
				return a.holder, nil
			case errors.Is(a.err, blob.ErrUnknown):
				q.unknown++
			default:
				q.silent = a.err
			}
		case <-ctx.Done():
			return holder{}, ctx.Err()
		}
	}
	if q.silent != nil && q.unknown < q.need {
		return holder{}, fmt.Errorf("%w: %s is not on the masters that answer: %s", blob.ErrUnavailable, q.d, q.silent)
	}
	return holder{}, fmt.Errorf("%w: %s", blob.ErrUnknown, q.d)
}
