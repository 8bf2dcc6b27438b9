package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"appliance/registry/internal/idle"
)

// ErrUnauthorized: no credentials, or wrong ones; the client is challenged.
var ErrUnauthorized = errors.New("authentication required")

// Action is what a request wants to do.
type Action string

// The actions of a registry. Login is the credential check alone; List is the
// catalog of all repositories; both come with an empty repository.
const (
	Login  Action = "login"
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
	List   Action = "list"
)

// Authorizer decides whether a request may act on a repository. It finds
// credentials as Basic authorization, or as a Bearer token that this registry
// did not make. It returns nil, ErrUnauthorized (the client may log in) or an
// error that wraps ErrDenied (logging in does not help).
type Authorizer func(ctx context.Context, r *http.Request, repository string, action Action) error

// AllowAll lets everyone do everything: for tests and throw-away registries.
func AllowAll(context.Context, *http.Request, string, Action) error { return nil }

// LoopbackPull lets requests from this machine pull and list without
// credentials and asks next about the rest; a nil next refuses. Loopback is
// open to every local user and host-network task, hence no push.
func LoopbackPull(next Authorizer) Authorizer {
	return func(ctx context.Context, r *http.Request, repository string, action Action) error {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && (action == Pull || action == List) {
			return nil
		}
		if next == nil {
			return ErrUnauthorized
		}
		return next(ctx, r, repository, action)
	}
}

// anonymousToken is what a client without credentials gets from /token. Docker
// pulls anonymously only if it gets a token.
const anonymousToken = "anonymous"

// tokenPrefix tells tokens of ours from other Bearer tokens.
const tokenPrefix = "basic."

// anonymous marks a request that came with the anonymous token.
type anonymous struct{}

// normalizeAuthorization turns a Bearer token made by serveToken back into the
// Basic authorization it stands for.
func normalizeAuthorization(r *http.Request) *http.Request {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return r
	}
	if token == anonymousToken {
		r = r.Clone(context.WithValue(r.Context(), anonymous{}, true))
		r.Header.Del("Authorization")
		return r
	}
	encoded, ours := strings.CutPrefix(token, tokenPrefix)
	pair, err := base64.RawURLEncoding.DecodeString(encoded)
	if user, secret, ok := strings.Cut(string(pair), ":"); ours && err == nil && ok {
		r = r.Clone(r.Context())
		r.SetBasicAuth(user, secret)
	}
	return r
}

// authorize asks the Authorizer and writes the challenge if need be. /v2/
// answers 401 to a request without any authorization even where pulling is
// open: only then do docker and containerd send credentials at all.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, repository string, action Action) error {
	if action == Login && r.Context().Value(anonymous{}) != nil {
		return nil
	}
	err := s.Authorize(r.Context(), r, repository, action)
	if errors.Is(err, ErrUnauthorized) {
		w.Header().Set("WWW-Authenticate", challenge(r, repository, action))
	}
	return err
}

func challenge(r *http.Request, repository string, action Action) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host := strings.NewReplacer(`"`, "", `\`, "").Replace(r.Host)
	c := fmt.Sprintf(`Bearer realm="%s://%s/token",service="%s"`, scheme, host, host)
	switch action {
	case Push:
		c += fmt.Sprintf(`,scope="repository:%s:pull,push"`, repository)
	case Pull, Delete:
		c += fmt.Sprintf(`,scope="repository:%s:%s"`, repository, action)
	case List:
		c += `,scope="registry:catalog:*"`
	}
	return c
}

// serveToken implements Docker's token protocol: GET with Basic authorization,
// and the OAuth2 form that containerd tries first. The token is only another
// spelling of the credentials, checked again with every request; so it cannot
// outlive them.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		s.fail(w, r, apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "GET or POST a token request"})
		return
	}
	user, secret, given := r.BasicAuth()
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, io.NopCloser(idle.Body(w, r)), 64<<10) // a form with one password
		switch grant := r.PostFormValue("grant_type"); grant {
		case "password":
			user, secret, given = r.PostFormValue("username"), r.PostFormValue("password"), true
		case "refresh_token":
			secret, given = r.PostFormValue("refresh_token"), true
		default:
			s.fail(w, r, apiError{http.StatusBadRequest, "UNSUPPORTED", fmt.Sprintf("grant_type %q: want password", grant)})
			return
		}
	}
	token := anonymousToken
	if given {
		r = r.Clone(r.Context())
		r.SetBasicAuth(user, secret)
		if err := s.Authorize(r.Context(), r, "", Login); err != nil {
			s.fail(w, r, err)
			return
		}
		token = tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(user+":"+secret))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}
