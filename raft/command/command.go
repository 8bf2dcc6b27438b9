// Package command holds the entries of the log: typed facts with everything
// decided, their encoding, and Apply, which turns them into state.
//
// Apply is total and deterministic: no clock, no random numbers, no input or
// output, no iteration over unsorted maps. Times and ids are fields of the
// command. A command checks everything before its first write, so that a
// refused command changes nothing.
package command

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"

	"appliance/node/model"
	"appliance/raft/state"
)

// Command is one fact. Implementations are plain structs of this package.
type Command interface {
	kind() kind
	// apply writes the fact into tx as of index. The value goes back to the
	// proposer. A refusal is an error of type *model.Error and no write.
	apply(tx *state.Tx, index uint64) (value any, refusal *model.Error)
}

// kind is the wire number of a command; numbers are never reused.
type kind uint16

// codecVersion is the first byte of every encoded command.
const codecVersion = 1

// MaxSize bounds an encoded command: larger entries would starve heartbeats.
const MaxSize = 1 << 20

// Encode gives the log form that every version reads: version, kind, JSON.
func Encode(c Command) ([]byte, error) {
	encode := func() ([]byte, error) { return json.Marshal(c) }
	if a, ok := c.(*Audited); ok {
		encode = a.encode
	}
	body, err := encode()
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", c, err)
	}
	if err := fits(c, len(body)); err != nil {
		return nil, err
	}
	out := make([]byte, 3, 3+len(body))
	out[0] = codecVersion
	binary.BigEndian.PutUint16(out[1:], uint16(c.kind()))
	return append(out, body...), nil
}

// UnknownError means that the log has an entry which this version does not
// know. The node must stop: skipping it would make its state differ.
type UnknownError struct {
	Version byte
	Kind    uint16
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the log has an entry of kind %d (codec %d) that this version does not know: run a newer version of the binary on this node", e.Kind, e.Version)
}

// Decode reads the log form.
func Decode(b []byte) (Command, error) {
	if len(b) < 3 {
		return nil, fmt.Errorf("log entry of %d bytes is too short", len(b))
	}
	decode := decodeJSON
	if b[0] == codecBinary {
		decode = decodeBinary
	}
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	inner := c
	if a, ok := c.(*Audited); ok {
		inner = a.Inner
	}
	if err := understood(inner); err != nil {
		return nil, err
	}
	return c, nil
}

func decodeJSON(b []byte) (Command, error) {
	k := kind(binary.BigEndian.Uint16(b[1:3]))
	typ := types[k]
	if b[0] != codecVersion || typ == nil {
		return nil, &UnknownError{Version: b[0], Kind: uint16(k)}
	}
	c := reflect.New(typ).Interface().(Command)
	read := func(body []byte) error { return readStrict(body, k, c) }
	if a, ok := c.(*Audited); ok {
		read = a.decode
	}
	if err := read(b[3:]); err != nil {
		return nil, fmt.Errorf("log entry of kind %d: %w", k, err)
	}
	return c, nil
}

// readStrict reads the body of a command. A field that it has not stops the
// node, as an unknown kind does: the change would be another one without it.
func readStrict(body []byte, k kind, c any) error {
	err := model.DecodeStrict(body, c)
	if field, unknown := model.UnknownField(err); unknown {
		return &state.NewerError{What: fmt.Sprintf("the log has an entry of kind %d with a field %s that this version does not know", k, field)}
	}
	return err
}

// Result is what a proposer gets back. It never changes.
type Result struct {
	Index uint64          `json:"index"`
	Value json.RawMessage `json:"value,omitempty"`
	Err   *model.Error    `json:"err,omitempty"`

	// kv is the value of a KVTxn, in place of Value: all nodes have it and
	// next to none needs it as JSON.
	kv *KVTxnResult
}

// maxKept bounds a result that is remembered for retries, in bytes, about. They are 64 Ki: the results of
// transactions that read what large keys hold would take gigabytes.
const maxKept = 4 << 10

// whyGone marks what is kept in the place of a longer result.
const whyGone = "its answer is too long to be kept, and the first one did not arrive"

// Brief implements raft.Longish.
func (r Result) Brief() any {
	size := len(r.Value)
	if r.kv != nil {
		for i := range r.kv.Results {
			size += 64 + len(r.kv.Results[i].Key) + len(r.kv.Results[i].Value)
		}
		for i := range r.kv.Errors {
			size += 16 + len(r.kv.Errors[i].What)
		}
	}
	if size <= maxKept {
		return nil
	}
	return Result{Index: r.Index, Err: model.Errorf(model.CodeInternal, "the change took effect, but what it answered is not known").
		Because(whyGone).Try("read what you want to know; do not repeat it blindly")}
}

// Gone implements raft.Longish.
func (r Result) Gone() bool { return r.Err != nil && r.Err.Why == whyGone }

// encoded is r as it travels and lies in snapshots.
func (r Result) encoded() (Result, error) {
	if r.kv == nil {
		return r, nil
	}
	raw, err := json.Marshal(r.kv)
	return Result{Index: r.Index, Value: raw, Err: r.Err}, err
}

// Apply decodes and applies one entry inside tx. The error is fatal for the
// node; a refusal is inside the result.
func Apply(tx *state.Tx, index uint64, data []byte) (Result, error) {
	c, err := Decode(data)
	if err != nil {
		return Result{}, err
	}
	return ApplyCommand(tx, index, c)
}

// ApplyCommand is Apply for a decoded command.
func ApplyCommand(tx *state.Tx, index uint64, c Command) (Result, error) {
	value, refusal := c.apply(tx, index)
	res := Result{Index: index, Err: refusal}
	if kv, ok := value.(*KVTxnResult); ok {
		res.kv = kv
	} else if value != nil {
		raw, err := json.Marshal(value)
		if err != nil {
			return res, fmt.Errorf("result of %T: %w", c, err)
		}
		res.Value = raw
	}
	return res, nil
}

// Decode unpacks the value of an accepted command into v, whose content must not be changed.
func (r Result) Decode(v any) error {
	if r.Err != nil {
		return r.Err
	}
	if out, ok := v.(*KVTxnResult); ok && r.kv != nil {
		*out = *r.kv
		return nil
	}
	r, err := r.encoded()
	if err != nil {
		return err
	}
	return json.Unmarshal(r.Value, v)
}

// types maps kinds to struct types; filled by the list in kinds.go.
var types = func() map[kind]reflect.Type {
	m := map[kind]reflect.Type{}
	for _, c := range all {
		t := reflect.TypeOf(c).Elem()
		if m[c.kind()] != nil {
			panic(fmt.Sprintf("command: kind %d is taken by %v and %v", c.kind(), m[c.kind()], t))
		}
		m[c.kind()] = t
	}
	return m
}()
