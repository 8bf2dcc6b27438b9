package story

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"appliance/node/needs"
)

// TestRecovery damages a master and renews it, then loses two masters, goes on from the third, and lets
// the lost ones come back.
func TestRecovery(t *testing.T) {
	needs.Root(t)
	r := recovery{&upgrades{Story: newStory(t)}}
	if err := r.Steps()[0].Run(t.Context()); err != nil { // machines
		r.explain(t)
		t.Fatal(err)
	}
	for _, m := range []string{"mm1", "mm2", "mm3"} {
		r.votes(t, m)
	}
	for i := range 20 {
		r.must(t, "lab", "exec", "mm1", "appliance", "kv", "put", fmt.Sprint("before/", i), "v")
	}
	r.step(t, "a flipped bit is found and the master renewed", func(t *testing.T) {
		r.must(t, "lab", "stop", "mm3")
		file := r.flip(t, "mm3")
		r.must(t, "lab", "start", "mm3")
		r.says(t, "mm3", filepath.Base(file)+" is damaged")
		r.must(t, "lab", "exec", "mm3", "appliance", "recover", "--resync")
		r.votes(t, "mm3")
	})
	r.step(t, "one master goes on alone", func(t *testing.T) {
		if out := r.must(t, "lab", "exec", "mm2", "appliance", "recover", "--plan"); !strings.Contains(out, "has a leader") {
			t.Fatal("a healthy cluster is not refused: ", out)
		}
		r.must(t, "lab", "poweroff", "mm1", "mm3")
		if err := await(t.Context(), stepTime, func(ctx context.Context) error { // the rest notices within seconds
			plan, err := r.run(ctx, "lab", "exec", "mm2", "appliance", "recover", "--plan")
			if err == nil && (!strings.Contains(plan, "does not answer") || !strings.Contains(plan, "as generation 2")) {
				err = errors.New(plan)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if out, err := r.run(t.Context(), "lab", "exec", "mm2", "appliance", "recover", "--resync"); err == nil {
			t.Fatal("the last master gave its log up: ", out)
		}
		r.must(t, "lab", "exec", "mm2", "appliance", "recover", "--accept-risk=lose-writes")
		r.must(t, "lab", "exec", "mm2", "appliance", "kv", "put", "after", "v")
		for i := range 20 {
			r.must(t, "lab", "exec", "mm2", "appliance", "kv", "get", fmt.Sprint("before/", i))
		}
	})
	r.step(t, "the dead come back and are not let in until they are renewed", func(t *testing.T) {
		r.must(t, "lab", "start", "mm1", "mm3")
		for _, m := range []string{"mm1", "mm3"} {
			r.says(t, m, "the cluster has gone on without this master")
		}
		r.must(t, "lab", "exec", "mm2", "appliance", "kv", "put", "still", "v")
		for _, m := range []string{"mm1", "mm3"} {
			r.must(t, "lab", "exec", m, "appliance", "recover", "--resync")
			r.votes(t, m)
		}
		r.must(t, "lab", "exec", "mm3", "appliance", "kv", "get", "after")
	})
	r.step(t, "three masters can lose one again", func(t *testing.T) {
		r.must(t, "lab", "poweroff", "mm2")
		if err := await(t.Context(), stepTime, func(ctx context.Context) error {
			_, err := r.run(ctx, "lab", "exec", "mm1", "appliance", "kv", "put", "last", "v")
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

type recovery struct{ *upgrades }

// flip changes one bit in the log of a stopped master.
func (r recovery) flip(t *testing.T, machine string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(r.o.Dir, machine, "data/raft/log/*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	f, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	return logs[0]
}

// says waits until a machine's log has a text.
func (r recovery) says(t *testing.T, machine, text string) {
	t.Helper()
	if err := await(t.Context(), stepTime, func(context.Context) error {
		raw, err := os.ReadFile(filepath.Join(r.o.Dir, machine, "log"))
		if err == nil && !strings.Contains(string(raw), text) {
			err = errors.New(machine + " does not say: " + text)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// votes waits until a master is a voter again.
func (r recovery) votes(t *testing.T, machine string) {
	t.Helper()
	if err := await(t.Context(), stepTime, func(ctx context.Context) error {
		out, err := r.run(ctx, "lab", "exec", machine, "appliance", "autopilot", "show")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if who, ok := strings.CutPrefix(line, "voters:"); ok && slices.Contains(strings.Fields(who), machine) {
				return nil
			}
		}
		return errors.New(machine + " does not vote: " + out)
	}); err != nil {
		t.Fatal(err)
	}
}
