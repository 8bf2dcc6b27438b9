package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// MarshalJSON encodes a pointer to a message as Mesos does: proto names,
// 64-bit numbers as numbers, enumerations by name, bytes in base64. The
// output has no newline.
func MarshalJSON(v any) []byte {
	var b bytes.Buffer
	writeMessage(&b, reflect.ValueOf(v).Elem())
	return b.Bytes()
}

func writeMessage(b *bytes.Buffer, v reflect.Value) {
	m := messageOf(v.Type())
	b.WriteByte('{')
	first := true
	for i := range m.fields {
		f := &m.fields[i]
		value := v.Field(f.index)
		if f.skip(value) {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteString(strconv.Quote(f.name))
		b.WriteByte(':')
		writeValue(b, value)
	}
	b.WriteByte('}')
}

func writeValue(b *bytes.Buffer, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		writeValue(b, v.Elem())
	case reflect.Struct:
		writeMessage(b, v)
	case reflect.Slice:
		if isBytes(v.Type()) {
			writeString(b, base64.StdEncoding.EncodeToString(v.Bytes()))
			return
		}
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			writeValue(b, v.Index(i))
		}
		b.WriteByte(']')
	case reflect.String:
		writeString(b, v.String())
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.Float64:
		writeFloat(b, v.Float())
	case reflect.Uint32, reflect.Uint64:
		b.WriteString(strconv.FormatUint(v.Uint(), 10))
	default:
		if name, ok := enumNames(v.Type())[int32(v.Int())]; ok {
			writeString(b, name)
			return
		}
		b.WriteString(strconv.FormatInt(v.Int(), 10))
	}
}

func writeString(b *bytes.Buffer, s string) {
	raw, _ := json.Marshal(s) // strings always encode
	b.Write(raw)
}

func writeFloat(b *bytes.Buffer, f float64) {
	switch {
	case math.IsInf(f, 1):
		b.WriteString(`"Infinity"`)
	case math.IsInf(f, -1):
		b.WriteString(`"-Infinity"`)
	case math.IsNaN(f):
		b.WriteString(`"NaN"`)
	default:
		b.WriteString(strconv.FormatFloat(f, 'f', -1, 64))
	}
}

// UnmarshalJSON decodes into a pointer to a message, which should be zero.
// null means unset anywhere, numbers may be strings.
func UnmarshalJSON(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("there is something behind the message")
	}
	return parseMessage(doc, reflect.ValueOf(v).Elem(), 0)
}

func parseMessage(doc any, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return errors.New("expecting a JSON object")
	}
	known := messageOf(v.Type())
	for i := range known.fields {
		f := &known.fields[i]
		value, ok := m[f.name]
		if !ok || value == nil {
			continue
		}
		if err := parseField(value, v.Field(f.index), depth); err != nil {
			return fmt.Errorf("field '%s': %w", f.name, err)
		}
	}
	return nil
}

func parseField(doc any, v reflect.Value, depth int) error {
	if v.Kind() != reflect.Slice || isBytes(v.Type()) {
		return parseValue(doc, v, depth)
	}
	list, ok := doc.([]any)
	if !ok {
		return errors.New("expecting a JSON array")
	}
	for _, e := range list {
		if e == nil {
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := parseValue(e, item, depth); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	return nil
}

func parseValue(doc any, v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Pointer:
		target := reflect.New(v.Type().Elem())
		if err := parseValue(doc, target.Elem(), depth); err != nil {
			return err
		}
		v.Set(target)
		return nil
	case reflect.Struct:
		return parseMessage(doc, v, depth+1)
	case reflect.String:
		s, ok := doc.(string)
		v.SetString(s)
		return expect(ok, "string")
	case reflect.Slice:
		s, ok := doc.(string)
		raw, err := base64.StdEncoding.DecodeString(s)
		v.SetBytes(raw)
		return expect(ok && err == nil, "base64 string")
	case reflect.Bool:
		b, ok := doc.(bool)
		v.SetBool(b)
		return expect(ok, "boolean")
	}
	return parseNumber(doc, v)
}

func expect(ok bool, what string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("expecting a JSON %s", what)
}

func parseNumber(doc any, v reflect.Value) error {
	text := ""
	switch d := doc.(type) {
	case json.Number:
		text = d.String()
	case string:
		if names := enumNames(v.Type()); names != nil {
			for n, name := range names {
				if name == d {
					v.SetInt(int64(n))
				}
			}
			return nil // an unknown name is unset
		}
		text = d
	default:
		return expect(false, "number")
	}
	var err error
	switch v.Kind() {
	case reflect.Float64:
		var f float64
		f, err = strconv.ParseFloat(text, 64) // reads Infinity too
		v.SetFloat(f)
	case reflect.Uint32, reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
	default:
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	}
	return err
}
