package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"appliance/discovery/discoverytest"
	"appliance/nfs/mount"
	"appliance/node/model"
	"appliance/raft/command"
)

func TestChooseTheServerOfAVolume(t *testing.T) {
	type world struct {
		leader, holder string
		dead           []string
		serve          []string // primaries of the volumes there are
	}
	cases := []struct {
		name string
		w    world
		want string
	}{
		{"neither leader nor holder", world{leader: "id-mm1", holder: "id-mm2"}, "id-mm3"},
		{"rather many volumes than the leader", world{leader: "id-mm1", holder: "id-mm2", serve: []string{"id-mm3", "id-mm3", "id-mm3"}}, "id-mm3"},
		{"the fewest volumes", world{leader: "id-mm1", holder: "id-mm1", serve: []string{"id-mm2"}}, "id-mm3"},
		{"a living one", world{leader: "id-mm1", holder: "id-mm2", dead: []string{"id-mm3"}}, "id-mm1"},
		{"leader and holder apart", world{leader: "id-mm1", holder: "id-mm1", dead: []string{"id-mm3"}}, "id-mm2"},
		{"the leader if it is alone", world{leader: "id-mm1", holder: "id-mm1", dead: []string{"id-mm2", "id-mm3"}}, "id-mm1"},
		{"nobody", world{dead: []string{"id-mm1", "id-mm2", "id-mm3"}}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cluster := discoverytest.New()
			for _, name := range []string{"mm1", "mm2", "mm3"} {
				cluster.Node(name, "192.0.2.1", model.RoleMaster)
			}
			cluster.Node("ms1", "192.0.2.4", model.RoleAgent) // never serves
			for i, primary := range c.w.serve {
				cluster.Must(&command.PutVolume{Volume: model.Volume{Name: string(rune('a' + i)), Env: "test", Primary: primary, InSync: []string{primary}}})
			}
			dead := map[string]bool{}
			for _, id := range c.w.dead {
				dead[id] = true
			}
			v := &volumes{leader: func() string { return c.w.leader }, holder: func() string { return c.w.holder }, alive: func(id string) bool { return !dead[id] }}
			if got := v.choose(cluster.Store.Snapshot()); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestVolumesAreForTheirEnvironment(t *testing.T) {
	c := discoverytest.New()
	c.Node("ms1", "192.0.2.4", model.RoleAgent) // of test
	c.Must(&command.PutVolume{Volume: model.Volume{Name: "t", Env: "test", Primary: "id-ms1"}},
		&command.PutVolume{Volume: model.Volume{Name: "p", Env: "production", Primary: "id-ms1"}})
	v := &volumes{store: c.Store}
	for _, tc := range []struct {
		name, peer, volume string
		ok                 bool
	}{
		{"own environment", "id-ms1", "t", true},
		{"other environment", "id-ms1", "p", false},
		{"unknown volume", "id-ms1", "x", false},
		{"unknown node", "id-x", "t", false},
	} {
		if err := v.authorize(tc.peer, tc.volume); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A node that has just started knows its tasks later than its mounts. What
// looks unused then is below running containers.
func TestUnusedVolumesAreUnmountedOnlyWhenTheStateIsCertain(t *testing.T) {
	c := discoverytest.New()
	v := &volumes{cfg: Config{ID: "id-ms1", Run: t.TempDir()}, store: c.Store, log: slog.New(slog.DiscardHandler)}
	if err := os.MkdirAll(v.stateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	// What mount keeps of a mount; its target is not mounted, so that an
	// unmount only forgets it.
	target := filepath.Join(t.TempDir(), "notes")
	h := fnv.New64a()
	h.Write([]byte(target))
	file := filepath.Join(v.stateDir(), fmt.Sprintf("mount-%016x.json", h.Sum64()))
	raw, err := json.Marshal(mount.Status{Spec: mount.Spec{Volume: "notes", Target: target, StateDir: v.stateDir()}, Kind: mount.KindKernel})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	v.certain = func(context.Context) error { return errors.New("no master answers") }
	v.sweep(t.Context())
	if _, err := os.Stat(file); err != nil {
		t.Fatal("unmounted by an uncertain state")
	}
	v.certain = func(context.Context) error { return nil }
	v.sweep(t.Context())
	if _, err := os.Stat(file); err == nil {
		t.Error("an unused volume stays mounted")
	}
}
