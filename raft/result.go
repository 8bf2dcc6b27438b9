package raft

import (
	"encoding/json"
	"errors"
	"fmt"
)

// codecOf returns the state machine's codec or the plain one.
func codecOf(sm StateMachine) ResultCodec {
	if c, ok := sm.(ResultCodec); ok {
		return c
	}
	return plainCodec{}
}

// plainCodec is used by state machines without an own ResultCodec: a kind byte, then the value.
type plainCodec struct{}

const (
	plainNil   = 0
	plainBytes = 'b'
	plainText  = 's'
	plainError = 'e'
	plainJSON  = 'j'
)

func (plainCodec) EncodeResult(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return []byte{plainNil}, nil
	case []byte:
		return append([]byte{plainBytes}, v...), nil
	case string:
		return append([]byte{plainText}, v...), nil
	case error:
		return append([]byte{plainError}, v.Error()...), nil
	default:
		b, err := json.Marshal(v)
		return append([]byte{plainJSON}, b...), err
	}
}

func (plainCodec) DecodeResult(b []byte) (any, error) {
	if len(b) == 0 {
		return nil, errors.New("result without a kind")
	}
	switch kind, rest := b[0], b[1:]; kind {
	case plainNil:
		return nil, nil
	case plainBytes:
		return rest, nil
	case plainText:
		return string(rest), nil
	case plainError:
		return errors.New(string(rest)), nil
	case plainJSON:
		return json.RawMessage(rest), nil
	default:
		return nil, fmt.Errorf("result of unknown kind %d", kind)
	}
}
