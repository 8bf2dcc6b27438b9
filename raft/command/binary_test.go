package command

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"

	"pgregory.net/rapid"
)

// fill sets every field of v to something that is not zero.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() && depth < 5 {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Interface && v.Type() != reflect.TypeFor[json.RawMessage]() {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth+1)
		}
	case reflect.String:
		v.SetString("t\u00e4xt")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(0.5)
	}
}

// Both forms of every command, by itself and on somebody's behalf, say the same. Every field is set, so a
// new one that the binary form forgets fails here.
func TestBothFormsSayTheSame(t *testing.T) {
	for _, c := range all {
		one := reflect.New(reflect.TypeOf(c).Elem()).Interface().(Command)
		fill(reflect.ValueOf(one).Elem(), 0)
		if _, audited := one.(*Audited); audited || understood(one) != nil { // made for a newer level
			continue
		}
		t.Run(name(c), func(t *testing.T) {
			by := Audited{Inner: one}
			fill(reflect.ValueOf(&by.Actor).Elem(), 0)
			fill(reflect.ValueOf(&by.At).Elem(), 0)
			agree(t, one)
			agree(t, &by)
		})
	}
}

func agree(t interface {
	Fatalf(string, ...any)
	Helper()
}, c Command) {
	t.Helper()
	old, err1 := EncodeFor(c, 1)
	plain, err2 := Encode(c)
	small, err3 := EncodeFor(c, levelBinary)
	if err1 != nil || err2 != nil || err3 != nil || !bytes.Equal(old, plain) {
		t.Fatalf("%v %v %v", err1, err2, err3)
	}
	a, err1 := Decode(old)
	b, err2 := Decode(small)
	if err1 != nil || err2 != nil {
		t.Fatalf("%v %v", err1, err2)
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("the binary form says\n%+v, not\n%+v", b, a)
	}
}

func TestBothFormsOfAnyWriteSayTheSame(t *testing.T) {
	text := rapid.OneOf(rapid.StringN(0, 20, -1), rapid.SampledFrom([]string{"", "\xff", "a\xc3", "\x00"}))
	rapid.Check(t, func(t *rapid.T) {
		txn := &KVTxn{}
		if rapid.Bool().Draw(t, "dated") {
			txn.At = time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC()
		}
		for range rapid.IntRange(0, 4).Draw(t, "ops") {
			op := KVOp{Verb: rapid.OneOf(rapid.SampledFrom(verbs), text).Draw(t, "verb"), Key: text.Draw(t, "key"),
				Flags: rapid.Uint64().Draw(t, "flags"), Index: rapid.Uint64().Draw(t, "index"), Session: text.Draw(t, "session")}
			if v := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "value"); len(v) > 0 {
				op.Value = v
			}
			txn.Ops = append(txn.Ops, op)
		}
		agree(t, txn)
		agree(t, &Audited{At: txn.At, Inner: txn, Actor: model.Actor{Who: text.Draw(t, "who"), From: text.Draw(t, "from"), Node: "n", Via: text.Draw(t, "via")}})
	})
}

func TestBinaryFormIsWrittenOnlyWhenAllReadIt(t *testing.T) {
	c := &KVTxn{Ops: []KVOp{{Verb: "set", Key: "k"}}}
	for level, want := range map[int]byte{1: codecVersion, 2: codecBinary, 3: codecBinary} {
		if raw, err := EncodeFor(c, level); err != nil || raw[0] != want {
			t.Errorf("level %d: %v, %v", level, raw, err)
		}
	}
	big := &KVTxn{Ops: []KVOp{{Verb: "set", Key: "k", Value: make([]byte, MaxSize)}}}
	if _, err := EncodeFor(big, 2); model.CodeOf(err) != model.CodeExhausted {
		t.Errorf("too large: %v", err)
	}
}

// Whatever stands in the log: the decoder ends with a command or an error, and a command can be written into
// a snapshot.
func FuzzDecodeBinary(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []Command{
		&KVTxn{Ops: []KVOp{{Verb: "set", Key: "k", Value: []byte("v")}, {Verb: "odd", Session: "s"}}, At: at},
		Audit(&KVTxn{Ops: []KVOp{{Verb: "delete", Key: "k"}}}, model.Actor{Who: "root"}, at),
		Audit(&DeleteApp{App: "a"}, model.Actor{}, at),
	} {
		raw, err := EncodeFor(c, 2)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 {
			return
		}
		raw[0] = codecBinary
		c, err := Decode(raw)
		if err != nil {
			return
		}
		s := state.New()
		tx := s.Begin()
		_, err = ApplyCommand(tx, 1, c)
		tx.Commit(1)
		var one, two bytes.Buffer
		if err := s.Snapshot().Write(&one); err != nil {
			t.Fatalf("%+v cannot be written: %v", c, err)
		}
		back := state.New()
		if err := back.Restore(bytes.NewReader(one.Bytes())); err != nil {
			t.Fatal(err)
		}
		if back.Snapshot().Write(&two); !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Fatalf("the state is another one after a snapshot:\n%s\n%s", &one, &two)
		}
		_ = err
	})
}
