package node

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"appliance/node/model"
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
	addr, link, err := outbound()
	if err != nil {
		t.Skip("this machine has not exactly one address:", err)
	}
	lost := "192.0.2.77" // of a network for documentation
	if !gone(lost) || gone(addr) || gone("127.0.0.1") {
		t.Skip("this machine lets anybody bind any address")
	}
	c := movable(t, lost)
	var e *model.Error
	if err := c.follow(); !errors.As(err, &e) || !strings.Contains(e.Fix, "appliance set --advertise") {
		t.Errorf("chosen address: %v", err)
	}
	if err := os.WriteFile(c.dir(foundFile), []byte("no-such-link"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.follow(); err == nil {
		t.Error("followed to another interface")
	}
	if err := os.WriteFile(c.dir(foundFile), []byte(link), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.follow(); err != nil || c.Advertise != addr {
		t.Fatalf("at %s, %v; want %s", c.Advertise, err, addr)
	}
	if again, err := Load(c.Data, c.Run); err != nil || again.Advertise != addr {
		t.Errorf("stored: %s, %v", again.Advertise, err)
	}
	c.VIP, c.Advertise = addr, lost
	if err := c.follow(); err == nil {
		t.Error("took the virtual address for its own")
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
