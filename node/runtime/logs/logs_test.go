package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/node/runtime"
)

func appendTo(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func TestCopyTail(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	for _, tc := range []struct {
		name         string
		old, present string
		tail         int
		want         string
	}{
		{"all, with the rotated file", "1\n2\n", "3\n4\n", 0, "1\n2\n3\n4\n"},
		{"last two", "1\n", "2\n3\n4\n", 2, "3\n4\n"},
		{"reaches into the rotated file", "1\n2\n", "3\n", 2, "2\n3\n"},
		{"unfinished last line counts", "", "1\n2\n3", 2, "2\n3"},
		{"more than there is", "", "1\n", 9, "1\n"},
		{"empty", "", "", 3, ""},
		{"lines longer than a block", "", long + "\n" + long + "\n", 1, long + "\n"},
		{"blank lines are lines", "", "1\n\n\n", 2, "\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			appendTo(t, filepath.Join(dir, Stdout), tc.present)
			if tc.old != "" {
				appendTo(t, filepath.Join(dir, Stdout+rotated), tc.old)
			}
			var out bytes.Buffer
			if err := Copy(t.Context(), dir, runtime.LogOptions{Stdout: &out, Tail: tc.tail}, nil); err != nil {
				t.Fatal(err)
			}
			if out.String() != tc.want {
				t.Fatalf("got %.60q, want %.60q", out.String(), tc.want)
			}
		})
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestFollowSurvivesRotation(t *testing.T) {
	dir := t.TempDir()
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	var out safeBuffer
	done, finished := make(chan struct{}), make(chan error, 1)
	go func() {
		finished <- Copy(context.Background(), dir, runtime.LogOptions{Stdout: &out, Follow: true}, done)
	}()
	var want strings.Builder
	for i := range 30 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat(".", 50))
		want.WriteString(line)
		appendTo(t, filepath.Join(dir, Stdout), line)
		if i == 8 || i == 15 { // the follower may miss what two rotations hide
			waitFor(t, func() bool { return strings.Contains(out.String(), line) })
		}
		if i%10 == 9 { // here it has not read the last lines yet
			if err := Rotate(dir, 100); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return strings.Contains(out.String(), line) })
		}
	}
	close(done)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Fatalf("followed\n%s\nwant\n%s", out.String(), want.String())
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached in 5 s")
		}
	}
}

func TestReadAsMesosDoes(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, Stdout), "hello world")
	for _, tc := range []struct {
		name           string
		offset, length int64
		want           string
	}{
		{"middle", 6, 3, "wor"}, {"to the end", 6, 100, "world"}, {"size only", -1, 0, ""}, {"past the end", 50, 5, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data, size, err := Read(dir, Stdout, tc.offset, tc.length)
			if err != nil || string(data) != tc.want || size != 11 {
				t.Fatalf("got %q, size %d, %v", data, size, err)
			}
		})
	}
	if _, _, err := Read(dir, "../secret", 0, 1); err == nil {
		t.Fatal("a stream name outside the directory was read")
	}
}
