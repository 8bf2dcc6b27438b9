package wire

import (
	"errors"
	"fmt"
	"math"
	"reflect"

	"google.golang.org/protobuf/encoding/protowire"
)

// MarshalProto encodes a pointer to a message.
func MarshalProto(v any) []byte { return appendMessage(nil, reflect.ValueOf(v).Elem()) }

func appendMessage(b []byte, v reflect.Value) []byte {
	m := messageOf(v.Type())
	for i := range m.fields {
		f := &m.fields[i]
		value := v.Field(f.index)
		if f.skip(value) {
			continue
		}
		if value.Kind() == reflect.Slice && !isBytes(value.Type()) {
			for j := range value.Len() {
				b = appendValue(b, f.number, value.Index(j))
			}
			continue
		}
		b = appendValue(b, f.number, value)
	}
	return b
}

func appendValue(b []byte, number int, v reflect.Value) []byte {
	n := protowire.Number(number)
	switch v.Kind() {
	case reflect.Pointer:
		return appendValue(b, number, v.Elem())
	case reflect.Struct:
		b = protowire.AppendTag(b, n, protowire.BytesType)
		return protowire.AppendBytes(b, appendMessage(nil, v))
	case reflect.String:
		b = protowire.AppendTag(b, n, protowire.BytesType)
		return protowire.AppendString(b, v.String())
	case reflect.Slice:
		b = protowire.AppendTag(b, n, protowire.BytesType)
		return protowire.AppendBytes(b, v.Bytes())
	case reflect.Float64:
		b = protowire.AppendTag(b, n, protowire.Fixed64Type)
		return protowire.AppendFixed64(b, math.Float64bits(v.Float()))
	case reflect.Bool:
		b = protowire.AppendTag(b, n, protowire.VarintType)
		return protowire.AppendVarint(b, protowire.EncodeBool(v.Bool()))
	case reflect.Uint32, reflect.Uint64:
		b = protowire.AppendTag(b, n, protowire.VarintType)
		return protowire.AppendVarint(b, v.Uint())
	}
	b = protowire.AppendTag(b, n, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v.Int()))
}

// UnmarshalProto decodes into a pointer to a message, which should be zero.
func UnmarshalProto(b []byte, v any) error { return readMessage(b, reflect.ValueOf(v).Elem(), 0) }

var errDepth = errors.New("the message is nested too deeply")

func readMessage(b []byte, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	m := messageOf(v.Type())
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, typ, b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if f := m.byNumber[int(number)]; f != nil {
			if err := readField(b[:n], typ, v.Field(f.index), depth); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		b = b[n:]
	}
	return nil
}

func readField(b []byte, typ protowire.Type, v reflect.Value, depth int) error {
	if v.Kind() == reflect.Slice && !isBytes(v.Type()) {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := readValue(b, typ, e, depth); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
		return nil
	}
	return readValue(b, typ, v, depth)
}

var errType = errors.New("has another type on the wire")

func readValue(b []byte, typ protowire.Type, v reflect.Value, depth int) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return readValue(b, typ, v.Elem(), depth)
	}
	switch v.Kind() {
	case reflect.Struct, reflect.String, reflect.Slice:
		if typ != protowire.BytesType {
			return errType
		}
		raw, _ := protowire.ConsumeBytes(b)
		switch v.Kind() {
		case reflect.Struct:
			return readMessage(raw, v, depth+1)
		case reflect.String:
			v.SetString(string(raw))
		default:
			v.SetBytes(append([]byte{}, raw...))
		}
	case reflect.Float64:
		if typ != protowire.Fixed64Type {
			return errType
		}
		bits, _ := protowire.ConsumeFixed64(b)
		v.SetFloat(math.Float64frombits(bits))
	default:
		if typ != protowire.VarintType {
			return errType
		}
		x, _ := protowire.ConsumeVarint(b)
		setVarint(v, x)
	}
	return nil
}

func setVarint(v reflect.Value, x uint64) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(protowire.DecodeBool(x))
	case reflect.Uint32:
		v.SetUint(uint64(uint32(x)))
	case reflect.Uint64:
		v.SetUint(x)
	case reflect.Int32:
		v.SetInt(int64(int32(x)))
	default:
		v.SetInt(int64(x))
	}
}
