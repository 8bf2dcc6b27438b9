package fake

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"appliance/node/runtime"
	"appliance/node/runtime/runtimetest"
	"appliance/node/runtime/runtimetest/app"
)

func suiteProgram(ctx context.Context, p *Proc) int {
	args := p.Args
	if len(args) > 0 && args[0] == "/app" {
		args = args[1:]
	}
	return app.Main(ctx, &app.Proc{Args: args, Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Signals: p.Signals})
}

func TestConformance(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	e := New()
	e.Program(runtimetest.ImageRef, suiteProgram)
	t.Cleanup(e.Close)
	runtimetest.Conformance(t, func(*testing.T) runtime.Runtime { return e.Open() })
}

func TestScriptedExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New()
		defer e.Close()
		e.Program("web:1", ExitAfter(time.Minute, 7))
		rt := e.Open()
		for _, tc := range []struct {
			name string
			do   func(id string)
			want runtime.Exit
		}{
			{"program ends", func(string) {}, runtime.Exit{Known: true, Code: 7}},
			{"scripted", func(id string) { e.Exit(id, 3) }, runtime.Exit{Known: true, Code: 3}},
			{"out of memory", func(id string) { e.OOM(id) }, runtime.Exit{Known: true, Code: 137, OOM: true}},
			{"lost", func(id string) { e.Lose(id) }, runtime.Exit{}},
		} {
			id := "c" + string(tc.name[0])
			if err := rt.Create(t.Context(), runtime.ContainerSpec{ID: id, Image: "web:1"}); err != nil {
				t.Fatal(err)
			}
			if err := rt.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			tc.do(id)
			got, err := rt.Wait(t.Context(), id)
			got.At = time.Time{}
			if err != nil || got != tc.want {
				t.Errorf("%s: %+v, %v", tc.name, got, err)
			}
			if err := rt.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	})
}
