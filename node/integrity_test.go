package node

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"
)

// identityOf reads all small files of a master as its start does.
func identityOf(data string) (string, error) {
	c, err := Load(data, "")
	if err != nil {
		return "", err
	}
	keys, err := c.pki().Keychain(time.Now())
	if err != nil {
		return "", err
	}
	ca, err := c.pki().LoadCA()
	if err != nil {
		return "", err
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return "", err
	}
	gossip, err := c.pki().GossipKeys()
	if err != nil {
		return "", err
	}
	birth, err := readBirth(c)
	if err != nil {
		return "", err
	}
	g, err := readGeneration(c)
	c.Data = ""
	first, _ := json.Marshal(birth)
	return fmt.Sprintf("%+v %x %x %x %x %s %+v", c, keys.Leaf().Certificate, ca.Cert.Raw, key, gossip, first, g), err
}

func TestDamageOfSmallFilesIsFoundOrRepaired(t *testing.T) {
	needs.Root(t)
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Init(Config{Name: "m1", Advertise: "127.0.0.1", Data: dir}, InitOptions{Cluster: "c", TokenTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := (generation{Node: "m1"}).save(Config{Data: dir}); err != nil {
		t.Fatal(err)
	}
	want, err := identityOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	tried := 0
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for i := range 30 {
			tried++
			copied := filepath.Join(t.TempDir(), "d")
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				return err
			}
			path := filepath.Join(copied, name)
			raw, err := os.ReadFile(path)
			if err != nil || len(raw) == 0 {
				return err
			}
			switch {
			case i == 0:
				os.Remove(path)
			case i < 5:
				os.WriteFile(path, raw[:rnd.IntN(len(raw))], 0o600)
			default:
				raw[rnd.IntN(len(raw))] ^= 1 << rnd.IntN(8)
				os.WriteFile(path, raw, 0o600)
			}
			got, err := identityOf(copied)
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%s: the error does not name it: %v", name, err)
			}
			if err == nil && got != want {
				t.Errorf("%s was damaged and nobody noticed", name)
			}
			if err != nil && name != "config.json" { // all others are made again
				t.Errorf("%s is not repaired: %v", name, err)
			}
		}
		return nil
	})
	if err != nil || tried < 200 {
		t.Fatal(tried, err)
	}
}
