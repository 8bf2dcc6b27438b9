package raft

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A snapshot of a replica is: magic, version, applied index and term, marker term, the dedup table,
// then the state machine's own stream up to the end. Integers are big endian. Whoever stores it adds
// the checksum (raft's file store, the feed).
const (
	snapMagic   = "APRS"
	snapVersion = 1
	maxResult   = 64 << 20 // bytes of one encoded result; older versions kept long ones
)

// ErrSnapshot says that a snapshot cannot be read.
var ErrSnapshot = errors.New("snapshot cannot be used")

// Snapshot is a frozen view of a replica.
type Snapshot struct {
	Index, Term uint64
	marker      uint64
	evicted     uint64
	seen        []remembered
	state       io.WriterTo
	codec       ResultCodec
}

// Snapshot freezes the current state. The caller must Release it.
func (r *Replica) Snapshot() (*Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halted != nil {
		return nil, r.halted
	}
	state, err := r.sm.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot of the state: %w", err)
	}
	return &Snapshot{
		Index: r.applied.Load(), Term: r.term, marker: r.markerTerm.Load(),
		evicted: r.dedup.evicted, seen: r.dedup.list(), state: state, codec: codecOf(r.sm),
	}, nil
}

// Release frees what the view holds.
func (s *Snapshot) Release() {
	if x, ok := s.state.(interface{ Release() }); ok {
		x.Release()
	}
}

// WriteTo writes the snapshot; it may run beside later changes of the replica.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	count := &counter{w: w}
	out := bufio.NewWriterSize(count, 64<<10)
	head := append([]byte(snapMagic), snapVersion)
	for _, v := range []uint64{s.Index, s.Term, s.marker, s.evicted, uint64(len(s.seen))} {
		head = binary.BigEndian.AppendUint64(head, v)
	}
	out.Write(head)
	for _, m := range s.seen {
		value, err := s.codec.EncodeResult(m.value)
		if err != nil {
			return count.n, fmt.Errorf("snapshot of a result: %w", err)
		}
		rec := append([]byte(nil), m.id[:]...)
		rec = binary.BigEndian.AppendUint64(rec, m.index)
		rec = binary.BigEndian.AppendUint32(rec, uint32(len(value)))
		out.Write(rec)
		out.Write(value)
	}
	if _, err := s.state.WriteTo(out); err != nil {
		return count.n, fmt.Errorf("write snapshot: %w", err)
	}
	err := out.Flush()
	return count.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// Restore replaces everything by a snapshot. On an error nothing has changed, but for a snapshot that needs a newer
// version (an error with Fatal, see StateMachine.Apply) the replica halts: what follows it in the log does, too.
func (r *Replica) Restore(rd io.Reader) error {
	in := bufio.NewReaderSize(rd, 64<<10)
	head := make([]byte, len(snapMagic)+1+5*8)
	if _, err := io.ReadFull(in, head); err != nil {
		return fmt.Errorf("%w: it is cut short: %w", ErrSnapshot, err)
	}
	if string(head[:4]) != snapMagic {
		return fmt.Errorf("%w: it does not begin as one", ErrSnapshot)
	}
	if head[4] != snapVersion {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.refuse(fmt.Errorf("its form %d is not known to this version: run a newer version of the binary on this node", head[4]))
	}
	num := func(i int) uint64 { return binary.BigEndian.Uint64(head[5+8*i:]) }
	seen, err := readSeen(in, num(4), codecOf(r.sm))
	if err != nil {
		return err
	}
	seen.evicted = num(3)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halted != nil {
		return r.halted
	}
	if err := r.sm.Restore(in); err != nil {
		if isFatal(err) != nil {
			return r.refuse(err)
		}
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	r.dedup, r.term = seen, num(1)
	r.markerTerm.Store(num(2))
	r.applied.Store(num(0))
	if r.observer != nil {
		r.observer.Restored(num(0))
	}
	r.wake()
	return nil
}

// refuse halts the replica because of a snapshot that is beyond this version. Under the lock.
func (r *Replica) refuse(err error) error {
	if r.halted == nil {
		r.halted = fmt.Errorf("%w at a snapshot: %w", ErrHalted, err)
		close(r.halt)
	}
	return r.halted
}

func readSeen(in io.Reader, n uint64, codec ResultCodec) (*dedup, error) {
	d := newDedup(dedupSize)
	if n > uint64(d.size) {
		return nil, fmt.Errorf("%w: it remembers %d proposals, more than %d", ErrSnapshot, n, d.size)
	}
	var head [16 + 8 + 4]byte
	for range n {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil, fmt.Errorf("%w: it is cut short: %w", ErrSnapshot, err)
		}
		size := binary.BigEndian.Uint32(head[24:])
		if size > maxResult {
			return nil, fmt.Errorf("%w: a result of %d bytes", ErrSnapshot, size)
		}
		raw, err := io.ReadAll(io.LimitReader(in, int64(size)))
		if err == nil && len(raw) < int(size) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it is cut short: %w", ErrSnapshot, err)
		}
		value, err := codec.DecodeResult(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
		d.add(remembered{ProposalID(head[:16]), binary.BigEndian.Uint64(head[16:]), value})
	}
	return d, nil
}
