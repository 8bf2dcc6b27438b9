package command

import (
	"reflect"
	"strconv"
	"sync"
)

// levelTag marks a field of a command, or of a record inside one, that came with a protocol level: a
// binary of a lower level would drop it. A command with such a field set needs that level.
//
//	Address string `json:"address,omitempty" level:"2"`
const levelTag = "level"

// fieldLevel is the highest level of the marked fields that are set in v.
func fieldLevel(v any) int { return valueLevel(reflect.ValueOf(v)) }

func valueLevel(v reflect.Value) int {
	if !marked(v.Type()) {
		return 1
	}
	out := 1
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			out = valueLevel(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			out = max(out, valueLevel(v.Index(i)))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			out = max(out, valueLevel(it.Value()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f, tag := v.Field(i), v.Type().Field(i).Tag.Get(levelTag)
			if tag != "" && !f.IsZero() {
				n, _ := strconv.Atoi(tag)
				out = max(out, n)
			}
			out = max(out, valueLevel(f))
		}
	}
	return out
}

var markedTypes sync.Map // reflect.Type -> bool

// marked reports whether a value of the type can hold a marked field. Most cannot, and cost a look.
func marked(t reflect.Type) bool {
	if known, ok := markedTypes.Load(t); ok {
		return known.(bool)
	}
	found := searchMarked(t, map[reflect.Type]bool{})
	markedTypes.Store(t, found)
	return found
}

func searchMarked(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return searchMarked(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get(levelTag) != "" || searchMarked(f.Type, seen) {
				return true
			}
		}
	}
	return false
}
