package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// oneUser knows ci:secret, who may push to team/ only.
func oneUser(_ context.Context, r *http.Request, repository string, action Action) error {
	user, secret, _ := r.BasicAuth()
	switch {
	case user != "ci" || secret != "secret":
		return ErrUnauthorized
	case action == Push && !strings.HasPrefix(repository, "team/"):
		return fmt.Errorf("%w: ci may not push to %s", ErrDenied, repository)
	}
	return nil
}

func TestAuthorization(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Authorize = LoopbackPull(oneUser) })
	r := f.want(f.do("GET", "/v2/", nil), 401, "UNAUTHORIZED")
	host := strings.TrimPrefix(f.url, "http://")
	if got, want := r.header.Get("WWW-Authenticate"), fmt.Sprintf(`Bearer realm="http://%s/token",service="%s"`, host, host); got != want {
		t.Fatal(got)
	}
	r = f.want(f.do("POST", "/v2/team/a/blobs/uploads/", nil), 401, "UNAUTHORIZED")
	if !strings.HasSuffix(r.header.Get("WWW-Authenticate"), `,scope="repository:team/a:pull,push"`) {
		t.Fatal(r.header)
	}
	f.want(f.do("GET", "/v2/team/a/manifests/x", nil), 404, "NAME_UNKNOWN") // pull is open on loopback
	f.want(f.do("GET", "/v2/_catalog", nil), 200, "")

	token := func(r reply) string {
		t.Helper()
		f.want(r, 200, "")
		var answer struct{ Token string }
		if err := json.Unmarshal(r.body, &answer); err != nil || answer.Token == "" {
			t.Fatalf("%s", r.body)
		}
		return "Authorization: Bearer " + answer.Token
	}
	const basic, wrong = "Authorization: Basic Y2k6c2VjcmV0", "Authorization: Basic Y2k6d3Jvbmc="
	const form = "Content-Type: application/x-www-form-urlencoded"

	anonymous := token(f.do("GET", "/token?scope=repository:team/a:pull", nil))
	f.want(f.do("GET", "/v2/", nil, anonymous), 200, "")
	f.want(f.do("POST", "/v2/team/a/blobs/uploads/", nil, anonymous), 401, "UNAUTHORIZED")

	f.want(f.do("GET", "/token", nil, wrong), 401, "UNAUTHORIZED")
	f.want(f.do("POST", "/token", []byte("grant_type=password&username=ci&password=wrong"), form), 401, "UNAUTHORIZED")
	f.want(f.do("POST", "/token", []byte("grant_type=magic"), form), 400, "UNSUPPORTED")

	for name, auth := range map[string]string{
		"Basic": basic,
		"token by GET with Basic, as docker does":       token(f.do("GET", "/token?account=ci", nil, basic)),
		"token by POST with a form, as containerd does": token(f.do("POST", "/token", []byte("grant_type=password&username=ci&password=secret"), form)),
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.want(f.do("GET", "/v2/", nil, auth), 200, "")
			f.want(f.do("POST", "/v2/team/a/blobs/uploads/", nil, auth), 202, "")
			f.want(f.do("POST", "/v2/other/blobs/uploads/", nil, auth), 403, "DENIED")
		})
	}
}

func TestPushIsClosedByDefault(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Authorize = nil })
	f.want(f.do("POST", "/v2/a/blobs/uploads/", nil), 401, "UNAUTHORIZED")
	f.want(f.do("PUT", "/v2/a/manifests/x", nil), 401, "UNAUTHORIZED")
	f.want(f.do("DELETE", "/v2/a/manifests/x", nil), 401, "UNAUTHORIZED")
	f.want(f.do("GET", "/v2/_catalog", nil), 200, "")
}

func TestPushIsRecordedWithItsUser(t *testing.T) {
	f := newFixture(t, nil)
	body := f.image("a", "1")
	f.want(f.do("PUT", "/v2/a/manifests/v1", body, "Content-Type: "+MediaManifest, "Authorization: Basic Y2k6c2VjcmV0"), 201, "")
	if m, err := f.index.Manifest(t.Context(), "a", "v1"); err != nil || m.PushedBy != "ci" || m.PushedAt.IsZero() {
		t.Fatal(m, err)
	}
}
