package command

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"appliance/raft/state"
)

// words are so few that commands meet each other's rows.
var words = []string{"", "a", "b", "n1", "n2", "test", "/test/a", "/test/b", "set", "cas", "delete", "lock", "agent", "ready", "down", "TASK_RUNNING"}

var began = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// arbitrary fills a value with what follows from r.
func arbitrary(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(began.Add(time.Duration(r.IntN(600)) * time.Second)))
		return
	case json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(`{"x":1}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(5)))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.IntN(5)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(r.IntN(8)) / 2)
	case reflect.Pointer:
		if depth > 0 && r.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			arbitrary(r, v.Elem(), depth-1)
		}
	case reflect.Slice:
		n := r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			arbitrary(r, v.Index(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			arbitrary(r, v.Index(i), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			arbitrary(r, key, depth-1)
			arbitrary(r, value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				arbitrary(r, v.Field(i), depth-1)
			}
			if v.Type().Field(i).Name == "Level" {
				v.Field(i).SetInt(int64(r.IntN(3))) // a level to come stops the node, as it should
			}
		}
	}
}

// stream is a log with commands of all kinds.
func stream(t *testing.T, r *rand.Rand, n int) (log [][]byte, kinds map[kind]bool) {
	kinds = map[kind]bool{}
	simple := func() Command {
		for {
			c := reflect.New(reflect.TypeOf(all[r.IntN(len(all))]).Elem()).Interface().(Command)
			switch c.(type) {
			case *Batch, *Audited:
				continue
			}
			arbitrary(r, reflect.ValueOf(c).Elem(), 5)
			return c
		}
	}
	for len(log) < n {
		c := simple()
		switch r.IntN(20) {
		case 0:
			batch, err := NewBatch(simple(), simple())
			if err != nil {
				t.Fatal(err)
			}
			c = batch
		case 1:
			audited := &Audited{}
			arbitrary(r, reflect.ValueOf(&audited.Actor).Elem(), 5)
			audited.Inner = c
			c = audited
		}
		raw, err := Encode(c)
		if err != nil {
			t.Fatalf("%T: %v", c, err)
		}
		kinds[c.kind()] = true
		log = append(log, raw)
	}
	return log, kinds
}

// replay applies a log in batches of up to size entries; it goes through a snapshot and its restore after
// entry cut.
func replay(t *testing.T, log [][]byte, size, cut int) (results []string, final []byte) {
	t.Helper()
	store := state.New()
	m := NewMachine(store)
	for i := 0; i < len(log); {
		end := min(len(log), i+size)
		if cut > i {
			end = min(end, cut)
		}
		m.Batch(uint64(end), func() {
			for ; i < end; i++ {
				out := m.Apply(uint64(i+1), 1, log[i])
				res, ok := out.(Result)
				if !ok {
					t.Fatalf("entry %d is fatal: %v: %q", i+1, out, log[i])
				}
				raw, err := m.EncodeResult(res)
				if err != nil {
					t.Fatal(err)
				}
				results = append(results, string(raw))
			}
		})
		if i == cut {
			snap := whole(t, store)
			store = state.New()
			m = NewMachine(store)
			if err := m.Restore(bytes.NewReader(snap)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return results, whole(t, store)
}

func whole(t *testing.T, store *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := store.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The same log gives the same state and the same results: again, in other batches, through a snapshot.
func TestEveryLogReplaysExactly(t *testing.T) {
	const entries = 600
	seen := map[kind]bool{}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		log, kinds := stream(t, r, entries)
		for k := range kinds {
			seen[k] = true
		}
		want, final := replay(t, log, 1, 0)
		for name, run := range map[string][2]int{
			"again": {1, 0}, "in batches": {1 + r.IntN(100), 0}, "through a snapshot": {1 + r.IntN(20), 1 + r.IntN(entries)},
		} {
			got, end := replay(t, log, run[0], run[1])
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("seed %d %s: entry %d: %s, first %s", seed, name, i+1, got[i], want[i])
				}
			}
			if !bytes.Equal(end, final) {
				t.Fatalf("seed %d %s: another state", seed, name)
			}
		}
	}
	for _, c := range all {
		if !seen[c.kind()] {
			t.Errorf("no %T in any log", c)
		}
	}
}
