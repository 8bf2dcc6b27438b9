package node

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/node/needs"

	"appliance/node/model"
	"appliance/node/pki"
)

func machine(t *testing.T) Config {
	needs.Root(t)
	return Config{Name: "mm1", Advertise: "192.0.2.1", VIP: "192.0.2.100", Data: filepath.Join(t.TempDir(), "data"), Run: t.TempDir(), Ingress: true}
}

var founding = InitOptions{Cluster: "house", Environments: []string{"test"}, TokenTTL: time.Hour}

func TestInitWritesWhatANodeNeeds(t *testing.T) {
	c := machine(t)
	f, err := Init(c, founding)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []model.Role{model.RoleMaster, model.RoleAgent} {
		tok, err := pki.ParseToken(f.Join[string(role)])
		if err != nil || tok.Role != role || !strings.HasSuffix(f.CADigest, strings.Split(f.Join[string(role)], "-")[2]) {
			t.Errorf("%s token %q: %v", role, f.Join[string(role)], err)
		}
	}
	if f.Address != "192.0.2.1:7600" || f.Name != "mm1" || !strings.HasPrefix(f.APIToken, "appl_") {
		t.Errorf("%+v", f)
	}
	got, err := Load(c.Data, c.Run)
	if err != nil || got.Role != model.RoleMaster || got.VIP != c.VIP || got.ID == "" || got.Masters[0] != f.Address {
		t.Errorf("%+v: %v", got, err)
	}
	birth, err := readBirth(got)
	if err != nil || birth.Cluster.Name != "house" || len(birth.JoinTokens) != 2 || len(birth.APITokens) != 1 || birth.Environments[0].Selector["env"] != "test" {
		t.Errorf("%+v: %v", birth, err)
	}
	onlyForRoot(t, c.Data)
	noSecrets(t, c.Data, f)
}

// onlyForRoot fails if a file or directory below dir is for others than its
// owner, certificates of public keys excepted.
func onlyForRoot(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		public := strings.HasSuffix(path, ".crt") || strings.HasSuffix(path, ".pem")
		if err == nil && info.Mode().Perm()&0o077 != 0 && !public {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// noSecrets fails if a token that was shown once is on disk.
func noSecrets(t *testing.T, dir string, f Founded) {
	t.Helper()
	var secrets []string
	for _, tok := range []string{f.Join["master"], f.Join["agent"], f.APIToken} {
		secrets = append(secrets, tok[strings.LastIndexAny(tok, "-_")+1:])
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		raw, _ := os.ReadFile(path) // directories have no content
		for _, s := range secrets {
			if strings.Contains(string(raw), s) {
				t.Errorf("%s has the secret of a token", path)
			}
		}
		return err
	})
}

func TestInitRefuses(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Config)
		code   model.Code
	}{
		{"name with a space", func(c *Config) { c.Name = "m m" }, model.CodeInvalid},
		{"name with a dot", func(c *Config) { c.Name = "mm1.example" }, model.CodeInvalid},
		{"name too long", func(c *Config) { c.Name = strings.Repeat("m", 64) }, model.CodeInvalid},
		{"no name", func(c *Config) { c.Name = "" }, model.CodeInvalid},
		{"address is a name", func(c *Config) { c.Advertise = "mm1" }, model.CodeInvalid},
		{"address of nobody", func(c *Config) { c.Advertise = "0.0.0.0" }, model.CodeInvalid},
		{"VIP is a name", func(c *Config) { c.VIP = "vip" }, model.CodeInvalid},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := machine(t)
			tc.change(&c)
			if _, err := Init(c, founding); model.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(c.Data); err == nil {
				t.Error("it left something behind")
			}
		})
	}
}

func TestInitAndJoinRefuseANode(t *testing.T) {
	c := machine(t)
	f, err := Init(c, founding)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(c.Data, configFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(c, founding); model.CodeOf(err) != model.CodeConflict {
		t.Errorf("init: %v", err)
	}
	if _, err := Join(t.Context(), c, f.Join["agent"], "192.0.2.1"); model.CodeOf(err) != model.CodeConflict {
		t.Errorf("join: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(c.Data, configFile)); string(after) != string(before) {
		t.Error("the configuration has changed")
	}
}

func TestJoinRefusesBeforeItAsks(t *testing.T) {
	c := machine(t)
	f, err := Init(c, founding)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, token string
		role        model.Role
		code        model.Code
	}{
		{"damaged token", f.Join["agent"][:40], "", model.CodeInvalid},
		{"no token", "", "", model.CodeInvalid},
		{"other role", f.Join["agent"], model.RoleMaster, model.CodeInvalid},
		{"nobody there", f.Join["agent"], "", model.CodeUnavailable},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := machine(t)
			c.Role = tc.role
			if _, err := Join(t.Context(), c, tc.token, "127.0.0.1:1"); model.CodeOf(err) != tc.code {
				t.Errorf("got %v", err)
			}
			if _, err := Load(c.Data, c.Run); model.CodeOf(err) != model.CodeNotFound {
				t.Errorf("it is a node now: %v", err)
			}
		})
	}
}

func TestLeaveRemovesEverything(t *testing.T) {
	c := machine(t)
	if _, err := Init(c, founding); err != nil {
		t.Fatal(err)
	}
	if err := Leave(c.Data, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(c.Data); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
	if _, err := Init(c, founding); err != nil {
		t.Errorf("it cannot begin again: %v", err)
	}
}

func TestLoadIsStrict(t *testing.T) {
	cases := []struct{ name, text string }{
		{"no JSON", "x"}, {"empty", ""}, {"unknown field", `{"id": "n1", "name": "mm1", "role": "master", "advertise": "192.0.2.1", "vpi": "192.0.2.3"}`},
		{"cut", `{"id": "n1", "name":`}, {"unknown role", `{"id": "n1", "name": "mm1", "role": "boss", "advertise": "192.0.2.1"}`},
		{"no address", `{"id": "n1", "name": "mm1", "role": "master"}`}, {"no id", `{"name": "mm1", "role": "master", "advertise": "192.0.2.1"}`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, configFile), []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if c, err := Load(dir, dir); err == nil {
				t.Errorf("it was taken: %+v", c)
			}
		})
	}
	if _, err := Load(t.TempDir(), ""); model.CodeOf(err) != model.CodeNotFound {
		t.Errorf("no configuration: %v", err)
	}
}
