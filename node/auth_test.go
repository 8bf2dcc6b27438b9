package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/registry"
)

// tokens puts one API token for each policy into a state and returns their
// secrets.
func tokens(t *testing.T, policies map[string]model.Policy) (access, map[string]string) {
	t.Helper()
	c := discoverytest.New()
	secrets := map[string]string{}
	for name, p := range policies {
		secret, tok := newAPIToken(time.Now())
		tok.Name, tok.Policy = name, p
		if name == "expired" {
			tok.ExpiresAt = time.Now().Add(-time.Second)
		}
		c.Must(&command.PutAPIToken{Token: tok})
		secrets[name] = secret
	}
	return access{c.Store}, secrets
}

var policies = map[string]model.Policy{
	"operator": {Operator: true}, "expired": {Operator: true}, "ci": {Deploy: []string{"test"}, Push: true},
	"all": {Deploy: []string{"*"}}, "reader": {Read: true},
}

func TestAccess(t *testing.T) {
	const remote, local, local6 = "10.1.2.3:5555", "127.0.0.1:5555", "[::1]:5555"
	read, write := api.Need{}, api.Need{Write: true}
	test, production := api.Need{Write: true, Deploy: "test"}, api.Need{Write: true, Deploy: "production"}
	operate := api.Need{Write: true, Operator: true}
	a, secret := tokens(t, policies)
	cases := []struct {
		name   string
		from   string // "" is the socket
		header http.Header
		need   api.Need
		ok     bool
	}{
		{"socket operates", "", nil, operate, true},
		{"socket does not mind headers", "", http.Header{"Origin": {"http://evil.example"}}, operate, true},
		{"loopback reads", local, nil, read, true},
		{"loopback writes", local, nil, write, true},
		{"loopback over IPv6 writes", local6, nil, write, true},
		{"loopback deploys", local, nil, production, true},
		{"loopback does not operate", local, nil, operate, false},
		{"loopback with a token has the token's rights", local, bearer(secret["reader"]), write, false},
		{"remote reads", remote, nil, read, true},
		{"remote does not write", remote, nil, write, false},
		{"remote does not operate", remote, nil, operate, false},
		{"remote reader does not write", remote, bearer(secret["reader"]), write, false},
		{"remote operator writes", remote, bearer(secret["operator"]), write, true},
		{"remote operator operates", remote, bearer(secret["operator"]), operate, true},
		{"X-Consul-Token", remote, http.Header{"X-Consul-Token": {secret["operator"]}}, write, true},
		{"Basic", remote, basic("anybody", secret["operator"]), write, true},
		{"deployer in its environment", remote, bearer(secret["ci"]), test, true},
		{"deployer in another", remote, bearer(secret["ci"]), production, false},
		{"deployer of all", remote, bearer(secret["all"]), production, true},
		{"deployer writes nothing else", remote, bearer(secret["ci"]), write, false},
		{"deployer does not operate", remote, bearer(secret["ci"]), operate, false},
		{"expired", remote, bearer(secret["expired"]), write, false},
		{"expired does not even read", remote, bearer(secret["expired"]), read, false},
		{"expired is not forgotten on loopback", local, bearer(secret["expired"]), write, false},
		{"wrong secret", remote, bearer(secret["operator"] + "x"), write, false},
		{"no token at all", remote, bearer("hello"), read, false},
		{"foreign page on loopback", local, http.Header{"Origin": {"http://evil.example"}}, write, false},
		{"foreign page without Origin", local, http.Header{"Sec-Fetch-Site": {"cross-site"}}, write, false},
		{"foreign page with remembered Basic", remote, with(basic("x", secret["operator"]), "Origin", "http://evil.example"), write, false},
		{"opaque origin", local, http.Header{"Origin": {"null"}}, write, false},
		{"foreign page reads what all may read", local, http.Header{"Origin": {"http://evil.example"}}, read, true},
		{"own page", local, http.Header{"Origin": {"http://192.0.2.1:8080"}}, write, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := request(c.from, c.header)
			if err := a.API(r, c.need); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			} else if err != nil && model.CodeOf(err) != model.CodeDenied {
				t.Errorf("code is %v: %v", model.CodeOf(err), err)
			}
			if c.need.Operator || c.need.Deploy != "" {
				return
			}
			if err := a.Dialect(r, c.need.Write); (err == nil) != c.ok {
				t.Errorf("dialect: got %v", err)
			}
		})
	}
}

func request(from string, h http.Header) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://192.0.2.1:8080/v2/apps", nil)
	r.RemoteAddr = from
	if from == "" {
		r.RemoteAddr = "@"
		r = r.WithContext(asRoot(context.Background(), nil))
	}
	for k, v := range h {
		r.Header[k] = v
	}
	return r
}

func bearer(secret string) http.Header { return http.Header{"Authorization": {"Bearer " + secret}} }

func basic(user, pass string) http.Header {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(user, pass)
	return r.Header
}

func with(h http.Header, key, value string) http.Header { h.Set(key, value); return h }

// A page of a foreign site may let its own name point to 127.0.0.1; the
// browser then sees one origin.
func TestReboundNameMayNotWrite(t *testing.T) {
	a, _ := tokens(t, nil)
	for host, ok := range map[string]bool{"evil.example": false, "evil.example:8080": false, "localhost:8080": true, "127.0.0.1:8080": true, "[::1]:8080": true, "[::1]": true} {
		r := request("127.0.0.1:5555", http.Header{"Origin": {"http://" + host}, "Sec-Fetch-Site": {"same-origin"}})
		r.Host = host
		if err := a.API(r, api.Need{Write: true}); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestRegistryAccess(t *testing.T) {
	a, secret := tokens(t, policies)
	cases := []struct {
		name   string
		from   string
		token  string
		action registry.Action
		want   error
	}{
		{"anybody pulls", "10.1.2.3:1", "", registry.Pull, nil},
		{"anybody lists", "10.1.2.3:1", "", registry.List, nil},
		{"loopback does not push", "127.0.0.1:1", "", registry.Push, registry.ErrUnauthorized},
		{"pusher pushes", "127.0.0.1:1", "ci", registry.Push, nil},
		{"pusher does not delete", "127.0.0.1:1", "ci", registry.Delete, registry.ErrDenied},
		{"reader does not push", "127.0.0.1:1", "reader", registry.Push, registry.ErrDenied},
		{"reader logs in", "127.0.0.1:1", "reader", registry.Login, nil},
		{"expired", "127.0.0.1:1", "expired", registry.Push, registry.ErrUnauthorized},
		{"operator deletes", "127.0.0.1:1", "operator", registry.Delete, nil},
		{"socket deletes", "", "", registry.Delete, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var h http.Header
			if c.token != "" {
				h = basic("token", secret[c.token])
			}
			if err := a.Registry(context.Background(), request(c.from, h), "notejam", c.action); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
