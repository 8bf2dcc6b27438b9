// Package wire is how Mesos v1 messages travel: the schema as Go structs, one
// reflective codec for protobuf and for the JSON of Mesos, and RecordIO.
//
// A field carries its number and name in a tag, `mesos:"3,framework_id"`. A
// field is written if it is not zero; "req" writes it always. Optional scalars
// whose zero means something are pointers. Unknown fields are skipped.
package wire

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// maxDepth bounds nesting, so that a hostile message cannot exhaust the stack.
const maxDepth = 32

// Enum is implemented by enumerations: named numbers. The names are shared
// and not changed.
type Enum interface{ Names() map[int32]string }

// field is one field of a message.
type field struct {
	index    int
	number   int
	name     string
	required bool
}

// message is what the codec knows of a struct type.
type message struct {
	fields   []field
	byNumber map[int]*field
	byName   map[string]*field
}

var messages sync.Map // reflect.Type -> *message

// messageOf reads the tags of a struct type once.
func messageOf(t reflect.Type) *message {
	if m, ok := messages.Load(t); ok {
		return m.(*message)
	}
	m := &message{byNumber: map[int]*field{}, byName: map[string]*field{}}
	for i := range t.NumField() {
		parts := strings.Split(t.Field(i).Tag.Get("mesos"), ",")
		n, err := strconv.Atoi(parts[0])
		if err != nil || len(parts) < 2 {
			panic(fmt.Sprintf("wire: field %s of %v has no tag", t.Field(i).Name, t)) // a fault in this package's schema
		}
		m.fields = append(m.fields, field{index: i, number: n, name: parts[1], required: len(parts) > 2 && parts[2] == "req"})
	}
	for i := range m.fields {
		m.byNumber[m.fields[i].number] = &m.fields[i]
		m.byName[m.fields[i].name] = &m.fields[i]
	}
	messages.Store(t, m)
	return m
}

// isBytes reports whether a type is []byte, which is one value and no list.
func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// skip reports whether a field is left out of the output.
func (f *field) skip(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil()
	case reflect.Slice:
		return v.Len() == 0 && !(f.required && isBytes(v.Type()))
	}
	return !f.required && v.IsZero()
}

// enumNames gives the names of an enumeration type, nil for other types.
func enumNames(t reflect.Type) map[int32]string {
	if e, ok := reflect.Zero(t).Interface().(Enum); ok {
		return e.Names()
	}
	return nil
}

// Name is the name of an enumeration's value.
func Name(e Enum) string {
	return e.Names()[int32(reflect.ValueOf(e).Int())]
}
