package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/node/wire/wiretest"
	"appliance/raft/archive"
	"appliance/raft/command"
	"appliance/raft/state"
)

// village is a cluster of nodes with real certificates, sockets and files, and a
// log that applies at once.
type village struct {
	*discoverytest.Cluster
	t       *testing.T
	mu      sync.Mutex
	masters []string
}

// resident is one node of it.
type resident struct {
	*trustKeeper
	town    *village
	addr    string
	secrets *secrets
	dialer  *wire.Dialer
	keyring atomic.Pointer[[][]byte]
	stop    context.CancelFunc
	done    sync.WaitGroup
}

func newVillage(t *testing.T) (*village, *resident) {
	t.Helper()
	w := &village{Cluster: discoverytest.New(), t: t}
	now := time.Now().UTC()
	ca, err := pki.NewCA(rand.Reader, now, newID())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{ID: newID(), Name: "mm1", Role: model.RoleMaster, Advertise: "127.0.0.1", Data: t.TempDir()}
	if err := storeFounder(cfg, ca, now); err != nil {
		t.Fatal(err)
	}
	trust, err := founderTrust(cfg, ca, now)
	if err != nil {
		t.Fatal(err)
	}
	w.Must(&command.InitCluster{Cluster: model.Cluster{ID: ca.Cluster, CACert: ca.CertPEM(), Trust: trust}})
	w.Must(&command.RegisterNode{Node: model.Node{ID: cfg.ID, Name: "mm1", Role: cfg.Role, Addr: cfg.Advertise, Status: model.NodeReady}, At: now})
	return w, w.live(cfg, w.Store)
}

func (w *village) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.masters...)
}

// live starts a node; it is out of touch until it can talk to a master.
func (w *village) live(cfg Config, store *state.Store) *resident {
	w.t.Helper()
	keys, err := cfg.pki().Keychain(time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r := &resident{town: w, dialer: wire.NewDialer(keys)}
	k := &trustKeeper{cfg: cfg, dir: cfg.pki(), keys: keys, store: store, proposer: w.Cluster, masters: func() []string { return slices.DeleteFunc(w.list(), func(a string) bool { return a == r.addr }) }, client: r.dialer.Client(),
		joining: wire.JoinClient(nil, keys, nil), log: log, fresh: func() bool { return r.hello(w.list()[0]) == nil },
		sync: func(context.Context) error {
			if store != w.Store {
				return errors.New("the state is an old one")
			}
			return nil
		}, gossip: func(keys [][]byte) error { r.keyring.Store(&keys); return nil }}
	r.trustKeeper, r.secrets = k, &secrets{trust: k, sync: k.sync}
	srv, mux := wire.NewServer(keys, log), http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	ln := wiretest.Listen(w.t)
	r.addr = ln.Addr().String()
	if cfg.Role == model.RoleMaster {
		k.ca = &authority{dir: k.dir, keys: keys, trust: k.confirmed}
		k.mount(mux)
		mux.HandleFunc("GET "+pathSecrets, r.secrets.serve)
		a := &admission{ca: k.ca, gossip: k.gossipKeys, store: store, proposer: w.Cluster, sync: k.sync, masters: w.list}
		srv.HandleJoin(a.handler())
		w.mu.Lock()
		w.masters = append(w.masters, r.addr)
		w.mu.Unlock()
	}
	srv.HandleHTTP(mux)
	if err := k.openGossipKeys(); err != nil {
		w.t.Fatal(err)
	}
	n := &Node{cfg: cfg, keys: keys, trust: k, masters: &masters{where: &locator{store: state.New()}}}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(w.t.Context())
	r.done.Go(func() { _ = srv.Run(ctx, ln) })
	r.done.Go(func() { _ = k.Run(ctx) })
	r.done.Go(func() {
		_ = keys.Run(ctx, log, func(ctx context.Context, csr []byte) ([]byte, error) {
			n.masters.fallback = w.list()
			return n.signLeaf(ctx, csr)
		}, k.dir.SaveNode)
	})
	w.t.Cleanup(func() { r.stop(); r.done.Wait(); r.dialer.Close() })
	return r
}

// greet opens a new connection and says hello over it.
func (r *resident) greet(addr string) error {
	ctx, cancel := context.WithTimeout(r.town.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := r.dialer.Dial(ctx, addr, wire.HTTP)
	if err != nil {
		return err
	}
	return conn.Close()
}

// hello waits for an answer, too: who dials learns of a refusal only then.
func (r *resident) hello(addr string) error {
	ctx, cancel := context.WithTimeout(r.town.t.Context(), 5*time.Second)
	defer cancel()
	_, err := r.get(ctx, "https://"+addr+"/hello")
	return err
}

// join brings a machine in over the wire.
func (w *village) join(name string, role model.Role, token string) (Config, error) {
	w.t.Helper()
	cfg := Config{Name: name, Role: role, Advertise: "127.0.0.1", Data: w.t.TempDir()}
	tok, err := pki.ParseToken(token)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	ans, err := askToJoin(w.t.Context(), wire.JoinClient(&tok, nil, nil), w.list()[0], joinRequest{Token: token, CSR: req.CSR, Name: name, Role: role, Addr: cfg.Advertise})
	if err != nil {
		return cfg, err
	}
	if err := settle(cfg, ans, req.Key); err != nil {
		w.t.Fatal(err)
	}
	cfg.ID = ans.ID
	w.Must(&command.UpdateNode{Node: model.Node{ID: cfg.ID, Addr: cfg.Advertise}, At: time.Now()})
	return cfg, nil
}

func (w *village) token(r *resident, role model.Role) string {
	w.t.Helper()
	tok, err := pki.NewToken(rand.Reader, role, r.signer())
	if err != nil {
		w.t.Fatal(err)
	}
	w.Must(&command.PutJoinToken{Token: tok.Record(time.Now(), time.Now().Add(time.Hour), false)})
	return tok.String()
}

func (w *village) trust() *model.Trust { return clusterOf(w.Store.Snapshot()).Trust }

func (w *village) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			var lacks []string
			for n := range state.Nodes.All(w.Store.Snapshot()) {
				for _, name := range model.RingNames {
					if what, _ := w.trust().Lacking(name, n); what != "" {
						lacks = append(lacks, n.Name+" "+what)
					}
				}
			}
			w.t.Fatalf("%s: never; %v", what, lacks)
		}
	}
}

func (w *village) rotated(name model.RingName, from string) func() bool {
	return func() bool { r := w.trust().Ring(name); return r.Phase == model.PhaseSteady && r.Active != from }
}

func TestRotationOverTheWire(t *testing.T) {
	w, mm1 := newVillage(t)
	old := w.token(mm1, model.RoleAgent)
	cfg, err := w.join("mm2", model.RoleMaster, w.token(mm1, model.RoleMaster))
	if err != nil {
		t.Fatal(err)
	}
	mm2 := w.live(cfg, w.Store)
	if cfg, err = w.join("ms1", model.RoleAgent, old); err != nil {
		t.Fatal(err)
	}
	ms1 := w.live(cfg, w.Store)
	if cfg, err = w.join("ms2", model.RoleAgent, old); err != nil {
		t.Fatal(err)
	}
	ms2 := w.live(cfg, w.Store)
	all := []*resident{mm1, mm2, ms1}

	// One that is away for the first two phases.
	ms2.stop()
	ms2.done.Wait()
	w.Must(&command.SetNodeStatus{Node: cfg.ID, Status: model.NodeDown, At: time.Now()})

	// All others greet each other all the time.
	stop, failed, greetings := make(chan struct{}), make(chan error, 1), atomic.Int64{}
	var greeters sync.WaitGroup
	for _, from := range all {
		for _, to := range all {
			greeters.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := from.greet(to.addr); err != nil {
						select {
						case failed <- fmt.Errorf("%s to %s: %w", from.cfg.Name, to.cfg.Name, err):
						default:
						}
						return
					}
					greetings.Add(1)
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	}
	lead, fall := context.WithCancel(t.Context())
	var leaders sync.WaitGroup
	leaders.Go(func() { mm1.lead(lead) })
	first := w.trust().CA.Active
	for _, ring := range model.RingNames {
		w.Must(&command.RotateKey{Ring: ring, Step: command.StepBegin, At: time.Now()})
	}
	w.until("every node goes over", func() bool { return w.trust().CA.Phase == model.PhaseSwitch })
	fall() // the other master takes over
	leaders.Wait()
	leaders.Go(func() { mm2.lead(t.Context()) })

	// An old token still works, though the masters' certificates are of the new CA.
	w.until("mm1 has a new certificate", func() bool {
		return mm1.keys.CA().SerialNumber.Cmp(mm2.keys.CA().SerialNumber) == 0 && pki.DigestOf(mm1.keys.CA()).String() != first
	})
	late, err := w.join("ms3", model.RoleAgent, old)
	if err != nil {
		t.Fatalf("with a token of the old CA: %v", err)
	}
	all = append(all, w.live(late, w.Store))

	// The one that was away knows the old CA only and has no state.
	empty := state.New()
	ms2 = w.live(cfg, empty)
	w.until("the returned node believes the new CA", func() bool { return len(ms2.keys.CAs()) == 2 })
	ms2.stop()
	ms2.done.Wait()
	ms2 = w.live(cfg, w.Store)
	w.Must(&command.UpdateNode{Node: model.Node{ID: cfg.ID, Addr: cfg.Advertise}, At: time.Now()})

	w.until("the CA is rotated", w.rotated(model.RingCA, first))
	w.until("gossip and seal are too", func() bool {
		return w.trust().Gossip.Phase == model.PhaseSteady && w.trust().Seal.Phase == model.PhaseSteady
	})
	w.until("all have only the new keys", func() bool {
		for _, r := range append(all, ms2) {
			if len(r.keys.CAs()) != 1 || len(r.gossipKeys()) != 1 || !bytes.Equal(r.gossipKeys()[0], mm1.gossipKeys()[0]) {
				return false
			}
		}
		return true
	})
	close(stop)
	greeters.Wait()
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
	if greetings.Load() < 100 {
		t.Errorf("only %d connections: the test shows too little", greetings.Load())
	}
	if _, err := w.join("ms4", model.RoleAgent, old); model.CodeOf(err) != model.CodeDenied {
		t.Errorf("a token of the dropped CA: %v", err)
	}
	if _, err := w.join("ms4", model.RoleAgent, w.token(mm1, model.RoleAgent)); err != nil {
		t.Errorf("a new token: %v", err)
	}
	w.until("the old CA's key is gone", func() bool {
		ids, err := mm1.dir.KeyIDs()
		return err == nil && !strings.Contains(strings.Join(ids, " "), first)
	})
	for _, r := range []*resident{ms1, ms2} {
		if left, _ := filepath.Glob(filepath.Join(r.cfg.Data, "pki", "keys", "*")); len(left) > 0 {
			t.Errorf("agent %s has private keys: %v", r.cfg.Name, left)
		}
	}
}

// A master that is killed when it has its new certificate may start with a state from before that. By it, it
// must not go back to the old CA, which the others drop meanwhile; and if it has, it must find out.
func TestMasterThatIsKilledInARotationComesBack(t *testing.T) {
	for _, fellBack := range []bool{false, true} {
		t.Run(fmt.Sprintf("with the old certificate %v", fellBack), func(t *testing.T) {
			w, mm1 := newVillage(t)
			cfg, err := w.join("mm2", model.RoleMaster, w.token(mm1, model.RoleMaster))
			if err != nil {
				t.Fatal(err)
			}
			mm2 := w.live(cfg, w.Store)
			first := w.trust().CA.Active
			reach := func(what string, phase model.Phase) {
				w.until(what, func() bool {
					_ = mm1.step(t.Context(), w.Store.Snapshot(), map[string]time.Time{}, time.Now())
					return w.trust().CA.Phase == phase
				})
			}
			w.Must(&command.RotateKey{Ring: model.RingCA, Step: command.StepBegin, At: time.Now()})
			reach("the new CA is told", model.PhaseSpread)
			var saved bytes.Buffer
			if err := w.Store.Snapshot().Write(&saved); err != nil {
				t.Fatal(err)
			}
			reach("all go over", model.PhaseSwitch)
			w.until("mm2 has its new certificate", func() bool {
				n := state.Nodes.Get(w.Store.Snapshot(), cfg.ID)
				return n.Trust.Leaf != first && pki.DigestOf(mm2.keys.CA()).String() != first
			})
			mm2.stop()
			mm2.done.Wait()
			if fellBack {
				chain, key, err := mm2.ca.own(first, cfg, time.Now().UTC())
				if err == nil {
					err = mm2.dir.SaveNode(chain, key)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			reach("the old CA goes", model.PhaseSteady)
			w.until("mm1 drops it", func() bool { return len(mm1.keys.CAs()) == 1 })
			old := state.New()
			if err := old.Restore(&saved); err != nil {
				t.Fatal(err)
			}
			if mm2 = w.live(cfg, old); !fellBack {
				time.Sleep(2 * trustEvery) // it looks at its state
			}
			w.until("mm2 can call mm1", func() bool {
				return pki.DigestOf(mm2.keys.CA()).String() == w.trust().CA.Active && mm2.hello(mm1.addr) == nil && mm1.hello(mm2.addr) == nil
			})
		})
	}
}

func TestOnlyMastersGetKeys(t *testing.T) {
	w, mm1 := newVillage(t)
	cfg, err := w.join("ms1", model.RoleAgent, w.token(mm1, model.RoleAgent))
	if err != nil {
		t.Fatal(err)
	}
	ms1 := w.live(cfg, w.Store)
	for _, id := range []string{w.trust().CA.Active, w.trust().Seal.Active, "..%2Fca"} {
		if raw, err := ms1.get(t.Context(), "https://"+mm1.addr+pathKeys+id); err == nil || strings.Contains(string(raw), "PRIVATE") {
			t.Errorf("an agent got %.8s: %q", id, raw)
		}
	}
	if _, err := ms1.get(t.Context(), "https://"+mm1.addr+pathGossip); err != nil {
		t.Errorf("the gossip key: %v", err)
	}
	w.Must(&command.SetNodeStatus{Node: cfg.ID, Status: model.NodeLeft, At: time.Now()})
	if _, err := ms1.get(t.Context(), "https://"+mm1.addr+pathGossip); err == nil {
		t.Error("a node that has left got the gossip key")
	}
}

func TestNextKeyThatWasLostIsMadeAgain(t *testing.T) {
	w, mm1 := newVillage(t)
	first := w.trust().CA.Active
	w.Must(&command.RotateKey{Ring: model.RingCA, Step: command.StepBegin, At: time.Now()})
	lost, err := pki.NewCA(rand.Reader, time.Now(), mm1.keys.Identity().Cluster)
	if err != nil {
		t.Fatal(err)
	}
	id := lost.Digest().String()
	w.Must(&command.RotateKey{Ring: model.RingCA, Step: command.StepSpread, Key: model.TrustKey{ID: id, Cert: lost.CertPEM()}, At: time.Now()})
	missing := map[string]time.Time{id: time.Now().Add(-keyLostAfter)}
	w.until("another one is made and used", func() bool {
		_ = mm1.step(t.Context(), w.Store.Snapshot(), missing, time.Now())
		return w.rotated(model.RingCA, first)()
	})
	if w.trust().CA.Active == id {
		t.Error("the CA is one whose key nobody has")
	}
}

func TestSecretsReachOnlyTheirTask(t *testing.T) {
	const plain = "PLAINTEXT of the secret"
	w, mm1 := newVillage(t)
	nodes := map[string]*resident{}
	for _, name := range []string{"ms1", "ms2"} {
		cfg, err := w.join(name, model.RoleAgent, w.token(mm1, model.RoleAgent))
		if err != nil {
			t.Fatal(err)
		}
		nodes[name] = w.live(cfg, w.Store)
	}
	for _, s := range [][2]string{{"", "shared"}, {"test", "db"}, {"", "db"}, {"test", "unused"}} {
		if _, err := mm1.secrets.PutSecret(t.Context(), w.Cluster, s[0], s[1], []byte(plain+" "+s[0])); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	deploy := func(id string, names map[string]string) error {
		_, err := command.Do(t.Context(), w.Cluster, &command.CreateRelease{Release: model.Release{App: id, Spec: model.AppSpec{ID: id, Image: "web", Secrets: names}, CreatedAt: now},
			Instances: 1, Deployment: model.Deployment{ID: "d" + newID(), Kind: "deploy", StartedAt: now}})
		return err
	}
	if err := deploy("/test/web", map[string]string{"A": "shared", "B": "db"}); err != nil {
		t.Fatal(err)
	}
	if err := deploy("/test/odd", map[string]string{"A": "nowhere"}); model.CodeOf(err) != model.CodeNotFound {
		t.Errorf("an app with a secret that is not there: %v", err)
	}
	w.Must(&command.CreateTasks{Tasks: []model.Task{{ID: "test_web.1", App: "/test/web", Release: 1, Env: "test"}}})
	if _, err := nodes["ms1"].secrets.fetch(t.Context(), "test_web.1"); model.CodeOf(err) != model.CodeDenied {
		t.Errorf("before the task is placed: %v", err)
	}
	w.Must(&command.Place{Placements: []model.Placement{{Task: "test_web.1", Node: nodes["ms1"].cfg.ID}}})
	got, err := nodes["ms1"].secrets.fetch(t.Context(), "test_web.1")
	if err != nil || len(got) != 2 || string(got["db"]) != plain+" test" || string(got["shared"]) != plain+" " {
		t.Errorf("%q: %v", got, err)
	}
	if got, err := nodes["ms2"].secrets.fetch(t.Context(), "test_web.1"); model.CodeOf(err) != model.CodeDenied {
		t.Errorf("another node got %d: %v", len(got), err)
	}
	if _, err := command.Do(t.Context(), w.Cluster, &command.DeleteSecret{Name: "db", Env: "test"}); model.CodeOf(err) != model.CodeConflict || !strings.Contains(err.Error(), "/test/web") {
		t.Errorf("a secret in use: %v", err)
	}
	if _, err := nodes["ms1"].secrets.PutSecret(t.Context(), w.Cluster, "", "x", []byte("y")); model.CodeOf(err) != model.CodeDenied {
		t.Errorf("an agent takes a secret: %v", err)
	}

	// Another seal key, and the same values.
	first := w.trust().Seal.Active
	w.Must(&command.RotateKey{Ring: model.RingSeal, Step: command.StepBegin, At: now})
	go mm1.lead(t.Context())
	w.until("the seal key is rotated", w.rotated(model.RingSeal, first))
	if again, err := nodes["ms1"].secrets.fetch(t.Context(), "test_web.1"); err != nil || string(again["db"]) != plain+" test" {
		t.Errorf("%q: %v", again, err)
	}
	var snapshot bytes.Buffer
	if err := w.Store.Snapshot().Write(&snapshot); err != nil || bytes.Contains(snapshot.Bytes(), []byte("PLAINTEXT")) || bytes.Contains(snapshot.Bytes(), []byte("UExBSU5URVhU")) {
		t.Errorf("the state has the value in plain: %v", err)
	}
	for _, r := range []*resident{mm1, nodes["ms1"], nodes["ms2"]} {
		err := filepath.WalkDir(r.cfg.Data, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if raw, _ := os.ReadFile(path); bytes.Contains(raw, []byte("PLAINTEXT")) {
				err = errors.New(path + " has the value in plain")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A snapshot of before a rotation brings secrets back that are sealed with the
// key that was retired: masters keep it for that.
func TestSecretsOfASnapshotFromBeforeARotationAreReadable(t *testing.T) {
	w, mm1 := newVillage(t)
	cfg, err := w.join("ms1", model.RoleAgent, w.token(mm1, model.RoleAgent))
	if err != nil {
		t.Fatal(err)
	}
	ms1 := w.live(cfg, w.Store)
	if _, err := mm1.secrets.PutSecret(t.Context(), w.Cluster, "test", "db", []byte("as it was")); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	w.Must(&command.CreateRelease{Release: model.Release{App: "/test/web", Spec: model.AppSpec{ID: "/test/web", Image: "web", Secrets: map[string]string{"DB": "db"}}, CreatedAt: now},
		Instances: 1, Deployment: model.Deployment{ID: "d" + newID(), Kind: "deploy", StartedAt: now}})
	w.Must(&command.CreateTasks{Tasks: []model.Task{{ID: "test_web.1", App: "/test/web", Release: 1, Env: "test"}}})
	w.Must(&command.Place{Placements: []model.Placement{{Task: "test_web.1", Node: cfg.ID}}})
	var file bytes.Buffer
	if err := archive.Write(&file, w.Store.Snapshot(), archive.Header{Time: now}); err != nil {
		t.Fatal(err)
	}
	if _, err := mm1.secrets.PutSecret(t.Context(), w.Cluster, "test", "db", []byte("as it became")); err != nil {
		t.Fatal(err)
	}
	rotate := func() {
		t.Helper()
		before := w.trust().Seal.Active
		w.Must(&command.RotateKey{Ring: model.RingSeal, Step: command.StepBegin, At: time.Now()})
		w.until("the seal key is rotated", w.rotated(model.RingSeal, before))
	}
	go mm1.lead(t.Context())
	rotate()
	w.Must(&command.StageRestore{ID: "r", Data: file.Bytes()})
	w.Must(&command.EndRestore{ID: "r", Commit: true, At: time.Now()})
	for _, when := range []string{"after the restore", "after another rotation"} {
		got, err := ms1.secrets.fetch(t.Context(), "test_web.1")
		if err != nil || string(got["db"]) != "as it was" {
			t.Fatalf("%s: %q: %v", when, got, err)
		}
		if when == "after the restore" {
			rotate()
		}
	}
}
