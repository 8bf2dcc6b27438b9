package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// movable is a node's configuration in a directory of its own.
func movable(t *testing.T, advertise string) Config {
	c := Config{ID: "n1", Name: "mm1", Role: model.RoleMaster, Advertise: advertise, Masters: []string{"192.0.2.1:7600"}, Data: t.TempDir(), Run: t.TempDir()}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddressIsFollowedOnlyIfItWasFound(t *testing.T) {
	const lost = "192.0.2.77"
	links := map[string]string{"192.0.2.5": "eth0", "198.51.100.5": "eth1", "198.51.100.6": "eth1"}
	on := func(link string) (map[string]string, error) {
		out := maps.Clone(links)
		maps.DeleteFunc(out, func(_, at string) bool { return link != "" && at != link })
		return out, nil
	}
	for name, tt := range map[string]struct{ found, vip, want string }{
		"it was chosen":                  {"", "", lost},
		"the interface is gone":          {"eth9", "", lost},
		"another at the same interface":  {"eth0", "", "192.0.2.5"},
		"several at the interface":       {"eth1", "", lost},
		"one is the virtual address":     {"eth1", "198.51.100.5", "198.51.100.6"},
		"only the virtual address is it": {"eth0", "192.0.2.5", lost},
	} {
		t.Run(name, func(t *testing.T) {
			c := movable(t, lost)
			c.VIP = tt.vip
			if tt.found != "" {
				if err := os.WriteFile(c.dir(foundFile), []byte(tt.found), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := c.move(on)
			if c.Advertise != tt.want {
				t.Errorf("at %s, %v; want %s", c.Advertise, err, tt.want)
			}
			var e *model.Error
			if stays := tt.want == lost; stays != (errors.As(err, &e) && strings.Contains(e.Fix, "appliance set --advertise")) {
				t.Errorf("stays %v, and says %v", stays, err)
			}
			if stored, err := Load(c.Data, c.Run); err != nil || stored.Advertise != tt.want {
				t.Errorf("stored: %s, %v", stored.Advertise, err)
			}
		})
	}
}

func TestGone(t *testing.T) {
	all, err := addresses("")
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range append(names(all), "127.0.0.1", "127.1.2.3") {
		if gone(addr) {
			t.Errorf("%s is an address of this machine", addr)
		}
	}
	for _, addr := range []string{"192.0.2.77", "", "no address"} { // the first is of a network for documentation
		if !gone(addr) {
			t.Errorf("%q is none of this machine", addr)
		}
	}
}

func TestSet(t *testing.T) {
	c := movable(t, "127.0.0.1")
	if err := os.WriteFile(c.dir(foundFile), []byte("lo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Set(c.Data, c.Run, Changes{Advertise: "192.0.2.77"}); err == nil {
		t.Error("an address of another machine was taken")
	}
	got, runs, err := Set(c.Data, c.Run, Changes{Advertise: "127.0.0.2", Masters: []string{"192.0.2.5", "192.0.2.6:7700"}})
	if err != nil || runs || got.Advertise != "127.0.0.2" || !slices.Equal(got.Masters, []string{"192.0.2.5:7600", "192.0.2.6:7700"}) {
		t.Errorf("%+v, %v, %v", got, runs, err)
	}
	if _, err := os.Stat(c.dir(foundFile)); !os.IsNotExist(err) {
		t.Error("an address that was chosen is still followed")
	}
	lock, err := lockData(c.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, runs, err := Set(c.Data, c.Run, Changes{Advertise: "127.0.0.3"}); err != nil || !runs {
		t.Errorf("of a node that runs: %v, %v", runs, err)
	}
}

func TestFirstMasters(t *testing.T) {
	c := movable(t, "127.0.0.1")
	if got := firstMasters(c); !slices.Equal(got, c.Masters) {
		t.Errorf("without a file: %v", got)
	}
	if err := os.WriteFile(c.dir(mastersFile), []byte(`["192.0.2.9:7600","192.0.2.1:7600"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstMasters(c); !slices.Equal(got, []string{"192.0.2.1:7600", "192.0.2.9:7600"}) {
		t.Errorf("the operator's word comes first, then what was last: %v", got)
	}
	if err := os.WriteFile(c.dir(mastersFile), []byte("\x00broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstMasters(c); !slices.Equal(got, c.Masters) {
		t.Errorf("with a broken file: %v", got)
	}
}

func TestMastersThatAllMovedMeetByTheAgents(t *testing.T) {
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}})
	n := &Node{cfg: movable(t, "127.0.0.1"), store: c.Store, log: slog.New(slog.DiscardHandler), started: time.Now()}
	n.masters = &masters{where: &locator{store: n.store}}
	c.Node("ms1", "192.0.2.21", model.RoleAgent)
	c.Node("ms2", "192.0.2.22", model.RoleAgent)
	c.Status("ms2", model.NodeLeft)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.keepMasters(ctx) }()
	want := []string{"192.0.2.21:7601"}
	for deadline := time.Now().Add(10 * time.Second); !slices.Equal(lastKnown(n.cfg, agentsFile), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("written down: %v", lastKnown(n.cfg, agentsFile))
		}
	}
	cancel()
	<-done
	// A master that starts again knows nothing but what is in its files.
	again := &Node{cfg: n.cfg, store: state.New(), started: time.Now()}
	again.masters = &masters{where: &locator{store: again.store}, agents: lastKnown(n.cfg, agentsFile)}
	if got := again.otherSeeds(); !slices.Equal(got, want) {
		t.Errorf("it asks %v", got)
	}
}

func TestALostAddressIsAFinding(t *testing.T) {
	n := &Node{watchdogs: newWatchdogs(slog.New(slog.DiscardHandler))}
	n.reportAddress(model.Errorf(model.CodeUnavailable, "this machine does not have the address").Because("it has another").Try("appliance set"))
	if got := n.watchdogs.parts; len(got) != 1 || got[0].Fix != "appliance set" || !strings.Contains(got[0].Why, "it has another") {
		t.Errorf("%+v", got)
	}
	n.reportAddress(nil)
	if got := n.watchdogs.parts; len(got) != 0 {
		t.Errorf("with its address: %+v", got)
	}
}
