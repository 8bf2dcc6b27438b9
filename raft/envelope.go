package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ProposalID identifies a proposal through all its retries. It is random.
type ProposalID [16]byte

// envelope is the form of a proposal in the log:
//
//	version 1 | flags | id (16) | floor (8, big endian) | payload
//
// floor is the index that the proposer had applied when it first tried. A retry that finds its id
// neither in the dedup table nor excluded by floor is refused, so it cannot be applied twice however
// late it comes.
type envelope []byte

const (
	envelopeVersion = 1
	envelopeHead    = 2 + 16 + 8

	flagRetry  = 1 << 0 // not the first attempt
	flagMarker = 1 << 1 // no payload: marks the begin of a leader's term
)

var errEnvelope = errors.New("log entry has an unknown form")

func newEnvelope(id ProposalID, floor uint64, flags byte, payload []byte) envelope {
	e := make(envelope, envelopeHead, envelopeHead+len(payload))
	e[0], e[1] = envelopeVersion, flags
	copy(e[2:], id[:])
	binary.BigEndian.PutUint64(e[18:], floor)
	return append(e, payload...)
}

func parseEnvelope(b []byte) (envelope, error) {
	switch {
	case len(b) < envelopeHead:
		return nil, fmt.Errorf("%w: %d bytes are too few", errEnvelope, len(b))
	case b[0] != envelopeVersion:
		return nil, fmt.Errorf("%w: version %d, this program knows %d: run a newer version on this node", errEnvelope, b[0], envelopeVersion)
	case b[1]&^(flagRetry|flagMarker) != 0:
		return nil, fmt.Errorf("%w: flags %#x: run a newer version on this node", errEnvelope, b[1])
	case len(b) > envelopeHead+MaxPayload:
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	return envelope(b), nil
}

func (e envelope) id() ProposalID  { return ProposalID(e[2:18]) }
func (e envelope) floor() uint64   { return binary.BigEndian.Uint64(e[18:26]) }
func (e envelope) payload() []byte { return e[envelopeHead:] }
func (e envelope) retry() bool     { return e[1]&flagRetry != 0 }
func (e envelope) marker() bool    { return e[1]&flagMarker != 0 }

// asRetry returns a copy that is marked as a further attempt; the original may be in use by raft.
func (e envelope) asRetry() envelope {
	c := append(envelope(nil), e...)
	c[1] |= flagRetry
	return c
}
