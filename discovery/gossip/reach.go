package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Row is what one node says of its links to others: one row of the matrix of
// who reaches whom. Only the node itself makes it; the others pass it on.
type Row struct {
	From string // node id
	// Version grows with every row that the node makes. It begins with the
	// time, and a node that meets an older self of a higher version goes on
	// above it, so that a clock that was set back does no harm.
	Version uint64
	At      time.Time // when it was made, by the reader's clock
	Alerts  []Alert   // what is wrong with the node, the worst first
	Links   []Link
}

// Alert is the short form of a finding of the doctor.
type Alert struct {
	Code  uint16 // 12 is D012
	Error bool   // otherwise a warning
}

// LinkState tells how the last calls over the wire port ended.
type LinkState byte

const (
	LinkUntried LinkState = iota
	LinkOK
	LinkSilent  // no answer in time
	LinkRefused // nothing listens there
	LinkDenied  // somebody answers, but not as that node: certificates or a taken address
)

func (s LinkState) String() string {
	switch s {
	case LinkOK:
		return "ok"
	case LinkSilent:
		return "no answer"
	case LinkRefused:
		return "connection refused"
	case LinkDenied:
		return "not accepted"
	}
	return "untried"
}

// Link is one node's view of another.
type Link struct {
	To    string // node id
	State LinkState
	// Heard tells that datagrams of the other arrive. They need one direction
	// only, a call needs both: that is how a one-way link is told.
	Heard bool
	Since time.Time     // of State, by the reader's clock
	RTT   time.Duration // median of the last calls
	Min   time.Duration // the shortest of them
	// Offset is the other's clock minus the own one; Slack is how wrong that
	// may be at most, either way.
	Offset, Slack time.Duration
}

const (
	// maxRow keeps a row in one datagram of memberlist beside its own words.
	maxRow    = 1150
	maxLinks  = 40 // what a row of the shortest ids could hold
	maxAlerts = 8  // the doctor has the rest
	maxID     = 64
	rowFormat = 1
)

var errRow = errors.New("not a row of the reachability matrix")

// encode appends the row as it is at the time now. Links that find no room are
// left out, from the end: the caller puts the important ones first.
func (r *Row) encode(b []byte, now time.Time) []byte {
	begin := len(b)
	b = append(b, rowFormat)
	b = binary.BigEndian.AppendUint32(b, uint32(min(span(now.Sub(r.At), time.Millisecond), 1<<32-1)))
	b = appendID(b, r.From)
	b = binary.AppendUvarint(b, r.Version)
	alerts := r.Alerts[:min(len(r.Alerts), maxAlerts)]
	b = append(b, byte(len(alerts)))
	for _, a := range alerts {
		code := uint64(a.Code) << 1
		if a.Error {
			code |= 1
		}
		b = binary.AppendUvarint(b, code)
	}
	count := len(b)
	b = append(b, 0)
	for _, l := range r.Links[:min(len(r.Links), maxLinks)] {
		longer := l.encode(b, r.At)
		if len(longer)-begin > maxRow {
			break
		}
		b = longer
		b[count]++
	}
	return b
}

func (l *Link) encode(b []byte, at time.Time) []byte {
	b = appendID(b, l.To)
	state := byte(l.State) << 1
	if l.Heard {
		state |= 1
	}
	b = append(b, state)
	b = binary.AppendUvarint(b, span(at.Sub(l.Since), time.Second))
	for _, d := range []time.Duration{l.RTT, l.Min, l.Slack} {
		b = binary.AppendUvarint(b, span(d, time.Microsecond))
	}
	return binary.AppendVarint(b, int64(max(-maxSpan, min(l.Offset, maxSpan))/time.Microsecond))
}

func span(d, unit time.Duration) uint64 { return uint64(max(0, min(d, maxSpan)) / unit) }

func appendID(b []byte, id string) []byte {
	id = id[:min(len(id), maxID)]
	return append(append(b, byte(len(id))), id...)
}

// decodeRow reads one row that arrived at the time now. The whole input must
// be the row.
func decodeRow(raw []byte, now time.Time) (Row, error) {
	in := reader{b: raw}
	if in.byte() != rowFormat || len(raw) > maxRow {
		return Row{}, errRow
	}
	r := Row{At: now.Add(-time.Duration(in.uint32()) * time.Millisecond), From: in.id(), Version: in.uvarint()}
	for range in.count(maxAlerts) {
		code := in.uvarint()
		if code>>1 > 1<<16-1 {
			in.bad = true
		}
		r.Alerts = append(r.Alerts, Alert{Code: uint16(code >> 1), Error: code&1 == 1})
	}
	for range in.count(maxLinks) {
		l := Link{To: in.id()}
		state := in.byte()
		l.State, l.Heard = LinkState(state>>1), state&1 == 1
		l.Since = r.At.Add(-in.duration(time.Second))
		l.RTT, l.Min, l.Slack = in.duration(time.Microsecond), in.duration(time.Microsecond), in.duration(time.Microsecond)
		l.Offset = in.signed(time.Microsecond)
		if l.State > LinkDenied || slices.ContainsFunc(r.Links, func(o Link) bool { return o.To == l.To }) {
			in.bad = true
		}
		r.Links = append(r.Links, l)
	}
	if in.bad || len(in.b) > 0 {
		return Row{}, errRow
	}
	return r, nil
}

// reader reads what appendID and binary have written. After the first fault
// it gives zeros, and bad says so.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	b := r.b[0]
	r.b = r.b[1:]
	return b
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.bad = true
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) count(limit int) int {
	n := int(r.byte())
	if n > limit {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) id() string {
	n := r.count(maxID)
	if n == 0 || n > len(r.b) {
		r.bad = true
		return ""
	}
	id := string(r.b[:n])
	r.b = r.b[n:]
	return id
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// maxSpan bounds every length of time in a row, which keeps sums in range.
const maxSpan = 100 * 365 * 24 * time.Hour

func (r *reader) duration(unit time.Duration) time.Duration {
	v := r.uvarint()
	if v > uint64(maxSpan/unit) {
		r.bad = true
		return 0
	}
	return time.Duration(v) * unit
}

func (r *reader) signed(unit time.Duration) time.Duration {
	v, n := binary.Varint(r.b)
	if n <= 0 || v > int64(maxSpan/unit) || v < -int64(maxSpan/unit) {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return time.Duration(v) * unit
}

// encodeRows is the form in which two members exchange rows: each with its
// length before it.
func encodeRows(rows []Row, now time.Time) []byte {
	b := []byte{tagRows}
	for _, r := range rows {
		one := r.encode(nil, now)
		b = binary.AppendUvarint(b, uint64(len(one)))
		b = append(b, one...)
	}
	return b
}

// decodeRows reads at most maxExchange rows.
func decodeRows(raw []byte, now time.Time) ([]Row, error) {
	in := reader{b: raw}
	if in.byte() != tagRows {
		return nil, errRow
	}
	var out []Row
	for len(in.b) > 0 {
		n := in.uvarint()
		if in.bad || n > maxRow || n > uint64(len(in.b)) || len(out) == maxExchange {
			return out, fmt.Errorf("%w: bad length after %d rows", errRow, len(out))
		}
		r, err := decodeRow(in.b[:n], now)
		if err != nil {
			return out, err
		}
		in.b = in.b[n:]
		out = append(out, r)
	}
	return out, nil
}
