package needs

import (
	"runtime"
	"testing"
)

// ended is a test that notes how it ended.
type ended struct {
	testing.TB
	how string
}

func (e *ended) Helper()               {}
func (e *ended) Fatalf(string, ...any) { e.end("failed") }
func (e *ended) Skipf(string, ...any)  { e.end("skipped") }
func (e *ended) end(how string)        { e.how = how; runtime.Goexit() }

func TestWhatIsMissingIsSkippedHereAndFailsInCI(t *testing.T) {
	needs := map[string]func(testing.TB){
		"tool":   func(t testing.TB) { Tool(t, "no-such-program", "no-such-package") },
		"device": func(t testing.TB) { Device(t, "/dev/no-such-device") },
		"what is there": func(t testing.TB) {
			Tool(t, "sh", "dash")
			Device(t, "/dev/null")
		},
	}
	for name, need := range needs {
		for ci, want := range map[string]string{"": "skipped", "true": "failed", "1": "failed"} {
			t.Setenv("CI", ci)
			e, done := &ended{}, make(chan struct{})
			go func() {
				defer close(done)
				need(e)
			}()
			<-done
			if name == "what is there" {
				want = ""
			}
			if e.how != want {
				t.Errorf("%s with CI=%q: %q, want %q", name, ci, e.how, want)
			}
		}
	}
}
