package marathon

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// decoder reads a parsed JSON document into structs and collects every fault
// with its path, which encoding/json cannot: unknown fields and wrong types.
type decoder struct{ details []detail }

func (d *decoder) add(path, fault string) {
	if path == "" {
		path = "/"
	}
	for i := range d.details {
		if d.details[i].Path == path {
			d.details[i].Errors = append(d.details[i].Errors, fault)
			return
		}
	}
	d.details = append(d.details, detail{path, []string{fault}})
}

func (d *decoder) addf(path, format string, args ...any) { d.add(path, fmt.Sprintf(format, args...)) }

// decode sets into from v. JSON null leaves it as it is.
func (d *decoder) decode(path string, v any, into reflect.Value) {
	if v == nil {
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		target := reflect.New(into.Type().Elem())
		d.decode(path, v, target.Elem())
		into.Set(target)
	case reflect.Interface:
		into.Set(reflect.ValueOf(v))
	case reflect.Struct:
		d.decodeStruct(path, v, into)
	case reflect.Map:
		d.decodeMap(path, v, into)
	case reflect.Slice:
		d.decodeSlice(path, v, into)
	case reflect.String:
		s, ok := v.(string)
		d.expect(ok, path, "jsstring")
		into.SetString(s)
	case reflect.Bool:
		b, ok := v.(bool)
		d.expect(ok, path, "jsboolean")
		into.SetBool(b)
	case reflect.Int:
		n, ok := v.(json.Number)
		i, err := n.Int64()
		d.expect(ok, path, "jsnumber")
		d.expect(!ok || err == nil, path, "int")
		into.SetInt(i)
	case reflect.Float64:
		n, ok := v.(json.Number)
		f, err := n.Float64()
		d.expect(ok && err == nil, path, "jsnumber")
		into.SetFloat(f)
	default:
		panic("marathon: no decoding into " + into.Type().String()) // a fault in this package's types
	}
}

func (d *decoder) expect(ok bool, path, what string) {
	if !ok {
		d.add(path, "error.expected."+what)
	}
}

func (d *decoder) decodeStruct(path string, v any, into reflect.Value) {
	m, ok := v.(map[string]any)
	if !ok {
		d.expect(false, path, "jsobject")
		return
	}
	for _, key := range sortedKeys(m) {
		field, ok := fieldOf(into, key)
		if !ok {
			d.add(path+"/"+key, "is not a known field")
			continue
		}
		d.decode(path+"/"+key, m[key], field)
	}
}

// fieldOf finds a field by its json tag.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("json") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func (d *decoder) decodeMap(path string, v any, into reflect.Value) {
	m, ok := v.(map[string]any)
	if !ok {
		d.expect(false, path, "jsobject")
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for _, key := range sortedKeys(m) {
		e := reflect.New(into.Type().Elem()).Elem()
		d.decode(path+"/"+key, m[key], e)
		into.SetMapIndex(reflect.ValueOf(key), e)
	}
}

func (d *decoder) decodeSlice(path string, v any, into reflect.Value) {
	list, ok := v.([]any)
	if !ok {
		d.expect(false, path, "jsarray")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
	for i, e := range list {
		d.decode(fmt.Sprintf("%s(%d)", path, i), e, into.Index(i))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
