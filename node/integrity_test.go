package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/needs"
	"appliance/raft/command"
	"appliance/raft/durable"
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
	ids, err := c.pki().KeyIDs()
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		raw, err := c.pki().Key(id)
		if err != nil {
			return "", err
		}
		key = fmt.Appendf(key, "%s %x ", id, raw)
	}
	if err := checkLevel(c); err != nil {
		return "", err
	}
	level, err := os.ReadFile(c.dir(levelFile))
	if err != nil {
		return "", err
	}
	o, err := readOrder(c)
	if err != nil {
		return "", err
	}
	key = fmt.Appendf(key, "%s %+v", level, o)
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
	made := Config{Data: dir}
	if err := made.pki().SaveKey("seal-later", []byte("the key of a later ring")); err != nil {
		t.Fatal(err)
	}
	if err := (&order{Kind: orderResync, At: time.Now().UTC(), SetAside: true}).save(made); err != nil {
		t.Fatal(err)
	}
	level, second, _ := made.twice(levelFile)
	if err := durable.WriteTwice(level, second, []byte("2\n")); err != nil {
		t.Fatal(err)
	}
	want, err := identityOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		seed := uint64(files)
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time goes into syncs
			damageInTurn(t, dir, name, want, rand.New(rand.NewPCG(3, seed)))
		})
		return nil
	})
	if err != nil || files < 15 {
		t.Fatal(files, err)
	}
}

// damageInTurn harms one file of a copy of dir in many ways. Each is noticed, with the file's name, or repaired.
func damageInTurn(t *testing.T, dir, name, want string, rnd *rand.Rand) {
	for i := range 30 {
		copied := filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(copied, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) == 0 {
			return
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
			t.Errorf("the error does not name it: %v", err)
		}
		if err == nil && got != want {
			t.Error("it was damaged and nobody noticed")
		}
		if err != nil && name != "config.json" { // all others are made again
			t.Errorf("it is not repaired: %v", err)
		}
	}
}

// Where the others were is a hint: who is there must show a certificate, what init and join have named is
// asked all the same, and the file is written anew at the start.
func TestDamagedHintsDoNoHarm(t *testing.T) {
	c := Config{Data: t.TempDir(), Masters: []string{"10.0.0.1:7600"}}
	now := []string{"10.0.0.1:7600", "10.0.0.2:7600"}
	n := &Node{cfg: c, log: quiet()}
	for _, file := range []string{mastersFile, agentsFile} {
		write := func() { var last []string; n.writeKnown(file, now, &last) }
		write()
		raw, err := os.ReadFile(c.dir(file))
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(raw) {
			bad := bytes.Clone(raw)
			bad[bit/8] ^= 1 << (bit % 8)
			for _, harmed := range [][]byte{bad, raw[:bit/8]} {
				if err := os.WriteFile(c.dir(file), harmed, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := firstMasters(c); len(got) == 0 || got[0] != c.Masters[0] || len(got) > 1+len(now) {
					t.Fatalf("%q: %v", harmed, got)
				}
				lastKnown(c, file)
			}
		}
		write()
		if got := lastKnown(c, file); !slices.Equal(got, now) {
			t.Errorf("after a start: %v", got)
		}
	}
}

// A saved snapshot that is damaged goes aside when the node has started, so that a good one takes its place.
func TestDamagedSnapshotsAreReplaced(t *testing.T) {
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1"}})
	dir := t.TempDir()
	var log bytes.Buffer
	start := func() *snapshots {
		return &snapshots{dir: filepath.Join(dir, snapshotDir), aside: filepath.Join(dir, damagedDir), store: c.Store, term: func() uint64 { return 1 },
			fresh: func() bool { return true }, log: slog.New(slog.NewTextHandler(&log, nil))}
	}
	path, err := start().step(discoverytest.Start)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := start().step(discoverytest.Start.Add(time.Minute)); again != "" || err != nil || log.Len() > 0 {
		t.Fatalf("an intact one: %q %v %s", again, err, log.String())
	}
	for i := 0; i < len(raw); i += 1 + len(raw)/20 {
		bad := bytes.Clone(raw)
		bad[i] ^= 4
		for _, harmed := range [][]byte{bad, raw[:i]} {
			log.Reset()
			if err := os.WriteFile(path, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := start().step(discoverytest.Start)
			if err != nil || again != path || !strings.Contains(log.String(), path) {
				t.Fatalf("byte %d: %q %v, logged %q", i, again, err, log.String())
			}
			if err := verifySnapshot(path); err != nil {
				t.Fatal(err)
			}
			os.RemoveAll(filepath.Join(dir, damagedDir))
		}
	}
}

// The newest file of the audit log is made again from the state; older ones are the auditCheck's.
func TestDamagedAuditFileIsMadeAgain(t *testing.T) {
	c := discoverytest.New()
	for range 13 {
		c.Must(command.Audit(&command.PutEnvironment{Environment: model.Environment{Name: "e"}}, model.Actor{Who: "root"}, discoverytest.Start))
	}
	dir := t.TempDir()
	var log bytes.Buffer
	start := func() {
		t.Helper()
		a := &auditFile{dir: filepath.Join(dir, "audit"), aside: filepath.Join(dir, damagedDir), store: c.Store, each: 10, log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		if err := a.write(c.Store.Snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	start()
	newest := filepath.Join(dir, "audit", "00000000000000000011.jsonl")
	raw, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(raw); i += 1 + len(raw)/60 {
		for _, harm := range []func() []byte{
			func() []byte { bad := bytes.Clone(raw); bad[i] ^= 2; return bad },
			func() []byte { return raw[:i] },
		} {
			if err := os.WriteFile(newest, harm(), 0o600); err != nil {
				t.Fatal(err)
			}
			log.Reset()
			start()
			got := readAudit(t, filepath.Join(dir, "audit"))
			if bad := model.VerifyAudit(got, 0); len(got) != 13 || bad != nil {
				t.Fatalf("byte %d: %d records, %v", i, len(got), bad)
			}
			if kept, _ := os.ReadDir(filepath.Join(dir, damagedDir)); len(kept) > 0 && !strings.Contains(log.String(), newest) {
				t.Fatalf("byte %d: moved aside without a word: %s", i, log.String())
			}
			os.RemoveAll(filepath.Join(dir, damagedDir))
		}
	}
	os.Remove(newest)
	start()
	if got := readAudit(t, filepath.Join(dir, "audit")); len(got) != 13 {
		t.Errorf("%d records after the loss of a file", len(got))
	}
}

// A flipped bit, a truncated or missing one among the finished files of the audit log is found and named.
func TestDamagedOldAuditFileIsFound(t *testing.T) {
	c := discoverytest.New()
	for range 35 {
		c.Must(command.Audit(&command.PutEnvironment{Environment: model.Environment{Name: "e"}}, model.Actor{Who: "root"}, discoverytest.Start))
	}
	dir := t.TempDir()
	a := &auditFile{dir: dir, store: c.Store, each: 10, log: quiet(), next: 1}
	if err := a.write(c.Store.Snapshot()); err != nil {
		t.Fatal(err)
	}
	check := &auditCheck{dir: dir, log: quiet()}
	if bad := check.look(t.Context()); len(bad) > 0 {
		t.Fatalf("sound files: %v", bad)
	}
	second, third := filepath.Join(dir, "00000000000000000011.jsonl"), filepath.Join(dir, "00000000000000000021.jsonl")
	raw, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	// The hash is of what a record tells; the state's bookkeeping beside it is not.
	told := func() (out []model.AuditRecord) {
		for _, r := range readAudit(t, dir) {
			r.Meta = model.Meta{}
			out = append(out, r)
		}
		return out
	}
	whole := told()
	named := func(what string, path string) {
		t.Helper()
		if bad := check.look(t.Context()); bad[path] == "" || len(bad) != 1 {
			t.Fatalf("%s: %v", what, bad)
		}
	}
	for i := 0; i < len(raw); i += 1 + len(raw)/60 {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 2
		if err := os.WriteFile(second, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(check.look(t.Context())) > 0 {
			named(fmt.Sprint("byte ", i, " flipped"), second)
		} else if !reflect.DeepEqual(told(), whole) { // else a bit that no reader sees, as the last ones of base64
			t.Fatalf("byte %d flipped: not found", i)
		}
		if err := os.WriteFile(second, raw[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if bad := check.look(t.Context()); bad[second] == "" && bad[third] == "" {
			t.Fatalf("cut at %d: %v", i, bad)
		}
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	named("a missing file", third)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = check.Run(ctx) }()
	for len(check.damaged()) == 0 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if got := check.damaged(); got[0].File != third {
		t.Errorf("the doctor hears of %+v", got)
	}
}
