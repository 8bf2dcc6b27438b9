package story

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ name, word, want string }{
		{"plain", "--env", "--env"},
		{"path", "/var/lib/x.yaml", "/var/lib/x.yaml"},
		{"empty", "", "''"},
		{"space", "a b", "'a b'"},
		{"quote", "it's", `'it'\''s'`},
		{"shell", "$(x)", "'$(x)'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quote(tt.word); got != tt.want {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestIndent(t *testing.T) {
	var b bytes.Buffer
	w := (&printer{w: &b}).indent()
	for _, part := range []string{"one\ntw", "o\n", "three"} {
		w.Write([]byte(part))
	}
	w.flush()
	if b.String() != "   one\n   two\n   three\n" {
		t.Errorf("%q", b.String())
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  Row
		want string
	}{
		{"nothing promised", Row{Measured: 5}, "-"},
		{"better than the goal", Row{Measured: 1, Floor: 3, Goal: 2, Bounded: true}, "goal"},
		{"between", Row{Measured: 3, Floor: 3, Goal: 2, Bounded: true}, "floor"},
		{"worse", Row{Measured: 4, Floor: 3, Goal: 2, Bounded: true}, "missed"},
		{"not a number", Row{Measured: math.NaN(), Floor: 3, Goal: 2, Bounded: true}, "missed"},
		{"none may fail", Row{Measured: 1, Bounded: true}, "missed"},
		{"none has failed", Row{Bounded: true}, "goal"},
		{"more is better", Row{Measured: 9, Floor: 3, Goal: 8, More: true, Bounded: true}, "goal"},
		{"too few", Row{Measured: 2, Floor: 3, Goal: 8, More: true, Bounded: true}, "missed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.row.judge(); tt.row.Verdict != tt.want {
				t.Errorf("%s", tt.row.Verdict)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	var list []time.Duration
	for i := range 100 {
		list = append(list, time.Duration(100-i)*time.Second)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.95: 95, 0.99: 99, 1: 100, 0: 1} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
	if got := quantile(list[:3], 0.99); got != 100 {
		t.Errorf("of few the worst: %g", got)
	}
}

// A fault is measured from the last success before it, or from its own
// moment, to the first success after it, whatever the tries do meanwhile.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name  string
		gap   time.Duration
		hangs bool // tries wait for their end instead of failing at once
	}{
		{"no gap", 0, false},
		{"refused for a while", 700 * time.Millisecond, false},
		{"silent for a while", 700 * time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				o := watchOutage(t.Context(), 200*time.Millisecond, func(ctx context.Context) error {
					if !broken.Load() {
						return nil
					}
					if tt.hangs {
						<-ctx.Done()
					}
					return errors.New("down")
				})
				if err := o.steady(t.Context(), 5); err != nil {
					t.Fatal(err)
				}
				fault := time.Now()
				if tt.gap > 0 {
					broken.Store(true)
					time.AfterFunc(tt.gap, func() { broken.Store(false) })
				}
				got, err := o.after(t.Context(), fault, 2*time.Second)
				if err != nil || got < tt.gap || got > tt.gap+2*tryEvery {
					t.Errorf("%s %v", got, err)
				}
			})
		})
	}
}

func TestOutageForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		o := watchOutage(t.Context(), 200*time.Millisecond, func(context.Context) error {
			if broken.Load() {
				return errors.New("connection refused")
			}
			return nil
		})
		if err := o.steady(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		if _, err := o.after(t.Context(), time.Now(), time.Second); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%v", err)
		}
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := await(t.Context(), time.Second, func(context.Context) error {
			if n++; n < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || n != 3 {
			t.Errorf("%d looks, %v", n, err)
		}
		err = await(t.Context(), time.Second, func(context.Context) error { return errors.New("never") })
		if err == nil || !strings.Contains(err.Error(), "after 1s still: never") {
			t.Errorf("%v", err)
		}
	})
}

func TestBuildFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "appliance.yaml")
	if err := os.WriteFile(path, []byte("name: x\nbuild: {files: {page: /page, ../"+filepath.Base(dir)+"/tool: /tool}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := buildFiles(path); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("a missing file: %v", err)
	}
	for _, name := range []string{"page", "tool"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := buildFiles(path)
	slices.Sort(files)
	if want := []string{"../" + filepath.Base(dir) + "/tool", "page"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v %v", files, err)
	}
}

func TestQuestion(t *testing.T) {
	want := "\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03app\x06consul\x00\x00\x01\x00\x01"
	if got := string(question("app.consul")); got != want {
		t.Errorf("%q", got)
	}
}
