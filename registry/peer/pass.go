package peer

import (
	"context"
	"io"

	"appliance/registry/blob"
	"appliance/registry/ref"
)

// passThrough serves a blob that the local disk has no room for. It is not
// verified here; clients verify what they pull.
func (s *Service) passThrough(ctx context.Context, d ref.Digest) (blob.Content, error) {
	q, err := s.locate(ctx, d)
	if err != nil {
		return blob.Content{}, err
	}
	defer q.stop()
	from, err := q.next(ctx, false)
	if err != nil {
		return blob.Content{}, err
	}
	r := &remote{ctx: ctx, service: s, from: from, d: d}
	return blob.Content{Info: blob.Info{Digest: d, Size: from.size}, ReadSeekCloser: r}, nil
}

// remote reads a master's copy; each seek costs a request.
type remote struct {
	ctx     context.Context
	service *Service
	from    holder
	d       ref.Digest
	offset  int64
	body    io.ReadCloser // at offset; nil after a seek
}

func (r *remote) Read(p []byte) (int, error) {
	if r.offset >= r.from.size {
		return 0, io.EOF
	}
	if r.body == nil {
		body, err := r.service.fetch(r.ctx, r.from.Master, r.d, r.offset)
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	n, err := r.body.Read(p)
	r.offset += int64(n)
	return n, err
}

func (r *remote) Seek(offset int64, whence int) (int64, error) {
	at, err := seek(r.offset, r.from.size, offset, whence)
	if err == nil && at != r.offset {
		r.Close()
		r.offset = at
	}
	return at, err
}

func (r *remote) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}
