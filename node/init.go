package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft/command"
	"appliance/raft/durable"
)

// birthFile holds the first entry of a new cluster's log until it is
// committed. It contains hashes, no secrets.
const birthFile = "birth.json"

// Founded is what the founder of a cluster is told, once.
type Founded struct {
	Cluster  string            `json:"cluster"`
	ID       string            `json:"id"`
	Name     string            `json:"name"` // of this node
	Address  string            `json:"address"`
	CADigest string            `json:"caDigest"`
	Join     map[string]string `json:"join"` // role -> token
	APIToken string            `json:"apiToken"`
	Expires  time.Time         `json:"expires"`
}

// InitOptions are the choices of a founder beyond the node's own Config.
type InitOptions struct {
	Cluster      string // name for people
	Environments []string
	TokenTTL     time.Duration
}

// Init makes this machine the first master of a new cluster: CA, identity,
// tokens and the first log entry. Nothing is started.
func Init(c Config, o InitOptions) (Founded, error) {
	var f Founded
	c.Role = model.RoleMaster
	if err := c.validate(); err != nil {
		return f, err
	}
	if err := c.claim(); err != nil {
		return f, err
	}
	now := time.Now().UTC()
	ca, err := pki.NewCA(rand.Reader, now, newID())
	if err != nil {
		return f, err
	}
	c.ID, c.Masters = newID(), []string{c.wireAddr()}
	if err := storeFounder(c, ca, now); err != nil {
		return f, err
	}
	f = Founded{Cluster: o.Cluster, ID: ca.Cluster, Name: c.Name, Address: c.wireAddr(), CADigest: "sha256:" + ca.Digest().String(), Join: map[string]string{}, Expires: now.Add(o.TokenTTL)}
	trust, err := founderTrust(c, ca, now)
	if err != nil {
		return f, err
	}
	birth := command.InitCluster{Cluster: model.Cluster{ID: ca.Cluster, Name: o.Cluster, CreatedAt: now, CACert: ca.CertPEM(), Trust: trust,
		VIP: c.VIP, Domain: c.Domain, Level: command.Speaks}}
	for _, role := range []model.Role{model.RoleMaster, model.RoleAgent} {
		tok, err := pki.NewToken(rand.Reader, role, ca.Digest())
		if err != nil {
			return f, err
		}
		f.Join[string(role)] = tok.String()
		birth.JoinTokens = append(birth.JoinTokens, tok.Record(now, f.Expires, false))
	}
	secret, tok := newAPIToken(now)
	tok.Name, tok.Policy = "operator", model.Policy{Operator: true}
	f.APIToken, birth.APITokens = secret, []model.APIToken{tok}
	if len(o.Environments) > 0 {
		birth.Cluster.DefaultEnv = o.Environments[0]
	}
	for _, env := range o.Environments {
		birth.Environments = append(birth.Environments, model.Environment{Name: env, Selector: map[string]string{"env": env}})
	}
	if err := writeBirth(c, birth); err != nil {
		return f, err
	}
	// The configuration comes last: with it the machine is part of a cluster.
	return f, c.save()
}

func storeFounder(c Config, ca *pki.CA, now time.Time) error {
	key, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	if err := c.pki().SaveCA(ca.CertPEM(), key); err != nil {
		return err
	}
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		return err
	}
	chain, err := issue(ca, now, req.CSR, c.ID, c.Name, c.Role, c.Advertise)
	if err != nil {
		return err
	}
	if err := c.pki().SaveNode(chain, req.Key); err != nil {
		return err
	}
	gossip, err := pki.NewGossipKey(rand.Reader)
	if err != nil {
		return err
	}
	return c.pki().SaveGossipKeys([][]byte{gossip})
}

// founderTrust names the keys of a new cluster, and makes the one that its
// secrets are sealed with.
func founderTrust(c Config, ca *pki.CA, now time.Time) (*model.Trust, error) {
	gossip, err := c.pki().GossipKeys()
	if err != nil {
		return nil, err
	}
	seal, err := pki.NewSealKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := c.pki().SaveKey(seal.ID(), seal[:]); err != nil {
		return nil, err
	}
	ring := func(id string, cert []byte) model.Ring {
		return model.Ring{Keys: []model.TrustKey{{ID: id, Cert: cert, AddedAt: now}}, Active: id, Since: now}
	}
	return &model.Trust{CA: ring(ca.Digest().String(), ca.CertPEM()), Gossip: ring(pki.GossipKeyID(gossip[0]), nil), Seal: ring(seal.ID(), nil)}, nil
}

func writeBirth(c Config, birth command.InitCluster) error {
	raw, err := json.Marshal(birth)
	if err != nil {
		return err
	}
	path, second, _ := c.twice(birthFile)
	return durable.WriteTwice(path, second, raw)
}

// readBirth returns the first log entry if it still has to be proposed.
func readBirth(c Config) (*command.InitCluster, error) {
	path, second, aside := c.twice(birthFile)
	raw, err := durable.ReadTwice(path, second, aside, nil)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	birth := &command.InitCluster{}
	return birth, json.Unmarshal(raw, birth)
}

// newID is a random 80-bit id, as text that may stand in DNS names.
func newID() string { return "n" + lower(rand.Text()[:16]) }

func lower(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

// newAPIToken makes a token "appl_ID_SECRET" and its record.
func newAPIToken(now time.Time) (string, model.APIToken) {
	id, secret := lower(rand.Text()[:10]), lower(rand.Text())
	return "appl_" + id + "_" + secret, model.APIToken{ID: id, Hash: hashSecret(secret), CreatedAt: now}
}

// hashSecret needs no salt or stretching: secrets have 128 random bits.
func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
