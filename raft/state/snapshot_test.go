package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"appliance/node/model"
	"appliance/raft/state"
	"appliance/raft/state/statetest"
)

func stream(t *testing.T, s *state.Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSnapshotComesBackAsItWas(t *testing.T) {
	state.Reads(2)
	for _, level := range []int{0, 2} {
		was := stream(t, statetest.Full(level, 700)) // several batches
		if want := fmt.Sprintf(`{"format":"appliance-state/%d"`, max(1, level)); !strings.HasPrefix(was, want) {
			t.Errorf("begins with %.40s, want %s", was, want)
		}
		s := state.New()
		if err := s.Restore(strings.NewReader(was)); err != nil {
			t.Fatal(err)
		}
		if is := stream(t, s); is != was {
			t.Errorf("level %d: another snapshot came back", level)
		}
	}
}

// Whatever is not understood as a whole changes nothing, and says whether a newer version would do.
func TestSnapshotsThatAreRefused(t *testing.T) {
	state.Reads(2)
	good := stream(t, statetest.Full(2, 300))
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, c := range []struct {
		name, text string
		newer      bool
	}{
		{"another level", swap("appliance-state/2", "appliance-state/3"), true},
		{"another format", swap("appliance-state/2", "something/2"), false},
		{"no number", swap("appliance-state/2", "appliance-state/x"), false},
		{"unknown table in the header", swap(`"tables":{`, `"tables":{"strange":7,`), true},
		{"unknown table", swap(`{"t":"kv"`, `{"t":"strange"`), true},
		{"unknown field", swap(`"release":3`, `"release":3,"strange":1`), true},
		{"unknown field deep inside", swap(`"status":{`, `"status":{"strange":{},`), true},
		{"cut short", good[:len(good)-100], false},
		{"a line is missing", good[:strings.LastIndex(good[:len(good)-1], "\n")+1], false},
		{"two documents in a row", swap(`,"seq":4,`, `,"seq":4}{,`), false},
		{"row too long", swap(`{"t":"kv","r":`, `{"t":"kv","r":{}`), false},
		{"not JSON", swap(`{"t":"kv","r":{`, `{"t":"kv","r":[`), false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statetest.Full(2, 3)
			was := stream(t, s)
			err := s.Restore(strings.NewReader(c.text))
			var newer *state.NewerError
			if err == nil || errors.As(err, &newer) != c.newer {
				t.Errorf("got %v", err)
			}
			if stream(t, s) != was {
				t.Error("the state has changed")
			}
		})
	}
}

// heap is what is in use now, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// gauge looks at the heap at every eighth MiB that passes by.
type gauge struct {
	total, next int
	worst       float64
}

func (g *gauge) passed(n int) {
	if g.total += n; g.total >= g.next {
		g.next = g.total + 8<<20
		g.worst = max(g.worst, heap())
	}
}

func (g *gauge) Write(b []byte) (int, error) { g.passed(len(b)); return len(b), nil }

const (
	large     = 48 // MiB of the streams below
	mayUse    = 12 // MiB
	valueSize = 256 << 10
)

func TestWritingASnapshotNeedsNoMemory(t *testing.T) {
	s := state.New()
	tx := s.Begin()
	shared := bytes.Repeat([]byte("x"), valueSize)
	for i := range large << 20 / valueSize {
		state.KVs.Put(tx, 1, &model.KV{Key: fmt.Sprint(i), Value: shared})
	}
	tx.Commit(1)
	g := &gauge{}
	before := heap()
	if err := s.Snapshot().Write(g); err != nil {
		t.Fatal(err)
	}
	if g.total < large<<20 || g.worst-before > mayUse {
		t.Errorf("wrote %d bytes with %.1f MiB", g.total, g.worst-before)
	}
}

// lines is a snapshot with the same key over and over, so that the state that comes out of it is small.
type lines struct {
	gauge
	head, row []byte
	left      int
}

func (l *lines) Read(b []byte) (int, error) {
	if len(l.head) == 0 {
		if l.left == 0 {
			return 0, io.EOF
		}
		l.left--
		l.head = l.row
	}
	n := copy(b, l.head)
	l.head = l.head[n:]
	l.passed(n)
	return n, nil
}

func TestRestoringASnapshotNeedsNoMemory(t *testing.T) {
	row := fmt.Appendf(nil, `{"t":"kv","r":{"key":"a","value":"%s"}}`+"\n", strings.Repeat("eHh4", valueSize/4))
	n := large << 20 / len(row)
	in := &lines{head: fmt.Appendf(nil, `{"format":"appliance-state/1","index":7,"tables":{"kv":7},"rows":%d}`+"\n", n), row: row, left: n}
	s := state.New()
	before := heap()
	if err := s.Restore(in); err != nil {
		t.Fatal(err)
	}
	if in.total < (large-1)<<20 || in.worst-before > mayUse {
		t.Errorf("read %d bytes with %.1f MiB", in.total, in.worst-before)
	}
	if state.KVs.Count(s.Snapshot()) != 1 || s.Index() != 7 {
		t.Error("another state came out")
	}
	t.Logf("%.1f MiB", in.worst-before)
}
