package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fill sets every field of a message to something, so that no tag is left out.
func fill(t *rapid.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 4 || rapid.Bool().Draw(t, "nil") {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), depth+1)
		}
	case reflect.Slice:
		if isBytes(v.Type()) {
			if b := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "bytes"); len(b) > 0 {
				v.SetBytes(b)
			}
			return
		}
		for range rapid.IntRange(0, 2).Draw(t, "n") {
			if depth > 4 {
				return
			}
			e := reflect.New(v.Type().Elem()).Elem()
			fill(t, e, depth)
			v.Set(reflect.Append(v, e))
		}
	case reflect.String:
		v.SetString(rapid.StringN(0, 5, -1).Draw(t, "s"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "b"))
	case reflect.Float64:
		v.SetFloat(rapid.SampledFrom([]float64{0, 1.5, -2, 1e21, math.Inf(1), math.Inf(-1)}).Draw(t, "f"))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64Max(math.MaxUint32).Draw(t, "u"))
	default:
		if names := enumNames(v.Type()); names != nil {
			var known []int32
			for n := range names {
				known = append(known, n)
			}
			v.SetInt(int64(rapid.SampledFrom(sorted(known)).Draw(t, "enum")))
			return
		}
		v.SetInt(int64(rapid.Int32().Draw(t, "i")))
	}
}

func sorted(n []int32) []int32 {
	for i := range n {
		for j := range i {
			if n[i] < n[j] {
				n[i], n[j] = n[j], n[i]
			}
		}
	}
	return n
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, in := range []any{&Call{}, &Event{}, &OperatorAnswer{}} {
			fill(t, reflect.ValueOf(in).Elem(), 0)
			viaProto, viaJSON := reflect.New(reflect.TypeOf(in).Elem()).Interface(), reflect.New(reflect.TypeOf(in).Elem()).Interface()
			if err := UnmarshalProto(MarshalProto(in), viaProto); err != nil || !reflect.DeepEqual(in, viaProto) {
				t.Fatalf("protobuf: %v\n%s\n%s", err, MarshalJSON(in), MarshalJSON(viaProto))
			}
			text := MarshalJSON(in)
			if err := UnmarshalJSON(text, viaJSON); err != nil || !reflect.DeepEqual(in, viaJSON) {
				t.Fatalf("JSON: %v\n%s\n%s", err, text, MarshalJSON(viaJSON))
			}
			if bytes.ContainsRune(text, '\n') {
				t.Fatal("a newline would break clients that read chunks")
			}
		}
	})
}

func TestJSONForms(t *testing.T) {
	var c Call
	err := UnmarshalJSON([]byte(`{"framework_id":{"value":"f"},"type":"ACCEPT","decline":null,"new_field":[1],
		"accept":{"offer_ids":[{"value":"o"}],"filters":{"refuse_seconds":"Infinity"},"operations":[{"type":"TELEPORT"},{"type":"LAUNCH","launch":{"task_infos":[
		{"name":"n","resources":[{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":"31000","end":31001}]},"reservations":null}]}]}}]}}`), &c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Type != CallAccept || c.Decline != nil || !math.IsInf(*c.Accept.Filters.RefuseSeconds, 1) || c.Accept.Operations[0].Type != 0 ||
		c.Accept.Operations[1].Launch.Tasks[0].Resources[0].Ranges.Range[0].Begin != 31000 {
		t.Errorf("%s", MarshalJSON(&c))
	}
	yes := true
	reason, source := ReasonReconciliation, SourceMaster
	got := string(MarshalJSON(&TaskStatus{TaskID: &ID{"t"}, State: 0, Timestamp: 1e9 + 0.5, Healthy: &yes, Reason: &reason, Source: &source, UUID: []byte{255}}))
	want := `{"task_id":{"value":"t"},"state":"TASK_STARTING","timestamp":1000000000.5,"healthy":true,"source":"SOURCE_MASTER","reason":"REASON_RECONCILIATION","uuid":"/w=="}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{``, `[]`, `{"type":true}`, `{"accept":[]}`, `{"acknowledge":{"uuid":"%"}}`, `{} {}`} {
		if UnmarshalJSON([]byte(bad), &Call{}) == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestRecordIO(t *testing.T) {
	var b bytes.Buffer
	for _, s := range []string{"a", "two\nlines", strings.Repeat("x", 1000)} {
		if err := WriteRecord(&b, []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if WriteRecord(&b, nil) == nil {
		t.Error("an empty record was written")
	}
	r := bufio.NewReader(&b)
	for _, n := range []int{1, 9, 1000} {
		if rec, err := ReadRecord(r); err != nil || len(rec) != n {
			t.Errorf("%d bytes, %v", len(rec), err)
		}
	}
	if _, err := ReadRecord(r); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for _, bad := range []string{"\n", "0\n", "x\n", "5\nabc", "9999999\n", "12345678\nx", "3"} {
		if _, err := ReadRecord(bufio.NewReader(strings.NewReader(bad))); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzRecordIO(f *testing.F) {
	f.Add([]byte("1\na5\nhello"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		var out bytes.Buffer
		for {
			rec, err := ReadRecord(r)
			if err != nil {
				break
			}
			if err := WriteRecord(&out, rec); err != nil {
				t.Fatal(err)
			}
		}
		// What was read means the same when written again.
		again := bufio.NewReader(&out)
		for range bytes.Count(in, []byte("\n")) {
			if _, err := ReadRecord(again); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzProto(f *testing.F) {
	f.Add(MarshalProto(&Call{Type: CallKill, Kill: &Kill{TaskID: &ID{"t"}}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var c, again Call
		if UnmarshalProto(in, &c) != nil {
			return
		}
		if err := UnmarshalProto(MarshalProto(&c), &again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"type":"KILL","kill":{"task_id":{"value":"t"}}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var c, again Call
		if UnmarshalJSON(in, &c) != nil {
			return
		}
		if err := UnmarshalJSON(MarshalJSON(&c), &again); err != nil {
			t.Fatal(err)
		}
	})
}
