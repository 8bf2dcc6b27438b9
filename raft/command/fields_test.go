package command

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"appliance/raft/state"
)

var update = flag.Bool("update", false, "add new fields to testdata/fields.txt")

// TestFieldsKeepTheirLevel guards the first rule of raft/DESIGN.md: a field of a command or a row that an older binary
// does not know says since which level it may be used, and none is ever removed or renamed.
func TestFieldsKeepTheirLevel(t *testing.T) {
	const path = "testdata/fields.txt"
	raw, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	known := map[string]string{} // field -> level
	for line := range strings.Lines(string(raw)) {
		level, field, _ := strings.Cut(strings.TrimSpace(line), " ")
		known[field] = level
	}
	since := map[string]string{} // type -> the level of its first fields
	for field, level := range known {
		typ, _, _ := strings.Cut(field, ".")
		if since[typ] == "" || level < since[typ] {
			since[typ] = level
		}
	}
	now := fields()
	for field, tag := range now {
		level, listed := known[field]
		typ, _, _ := strings.Cut(field, ".")
		old := since[typ] != "" && since[typ] < fmt.Sprint(Speaks)
		switch {
		case tag == "always":
			t.Errorf("%s is written even if it is not set, and older binaries stop at it: give it omitempty or omitzero", field)
		case !listed && tag == "" && old:
			t.Errorf("%s is new: an older binary would drop it. Say since when it may be used with the tag level:\"%d\"; then: go test ./raft/command -run TestFieldsKeepTheirLevel -update", field, Speaks)
		case !listed && *update:
			known[field] = tag
			if tag == "" { // of a type that is new as a whole
				known[field] = fmt.Sprint(Speaks)
			}
		case !listed:
			t.Errorf("%s is new: go test ./raft/command -run TestFieldsKeepTheirLevel -update", field)
		case level != tag && (tag != "" || level != since[typ]):
			t.Errorf("%s came with level %s, its tag says %q", field, level, tag)
		}
	}
	for field := range known {
		if _, there := now[field]; !there {
			t.Errorf("%s is gone: the log and snapshots may have it, and a node that does not know it stops", field)
		}
	}
	if !*update || t.Failed() {
		return
	}
	var out strings.Builder
	for _, field := range slices.Sorted(maps.Keys(known)) {
		fmt.Fprintln(&out, known[field], field)
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fields lists what commands and rows are made of, as Type.name, with the level tag.
func fields() map[string]string {
	out := map[string]string{}
	seen := map[reflect.Type]bool{}
	for _, c := range all {
		addFields(out, seen, reflect.TypeOf(c))
	}
	for _, row := range state.RowTypes() {
		addFields(out, seen, row)
	}
	addFields(out, seen, reflect.TypeFor[auditedHead]())
	return out
}

func addFields(out map[string]string, seen map[reflect.Type]bool, t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		addFields(out, seen, t.Elem())
	case reflect.Struct:
		if seen[t] || !strings.HasPrefix(t.PkgPath(), "appliance") {
			return
		}
		seen[t] = true
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && !f.Anonymous && name != "-" {
				if name == "" {
					name = f.Name
				}
				out[t.Name()+"."+name] = f.Tag.Get(levelTag)
				if tag := f.Tag.Get(levelTag); tag != "" && !strings.Contains(f.Tag.Get("json"), ",omit") {
					out[t.Name()+"."+name] = "always" // also where nobody may use it
				}
			}
			addFields(out, seen, f.Type)
		}
	}
}
