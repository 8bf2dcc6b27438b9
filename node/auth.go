package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/state"
	"appliance/registry"
)

// access decides who may do what, for every dialect alike.
//
// The node's unix socket belongs to root and may do everything. Requests from
// this machine itself may read and change apps and keys; requests from other
// machines may read, and need a token to change anything. Tokens and nodes are
// the operator's, wherever the request comes from. What an agent passes on to a
// master has the rights of the token in it and no other.
type access struct{ store *state.Store }

// rootKey marks requests that came through the unix socket.
type rootKey struct{}

// asRoot marks the connections of the unix socket.
func asRoot(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, rootKey{}, true)
}

// API implements api.Authorize.
func (a access) API(r *http.Request, need api.Need) error {
	if r.Context().Value(rootKey{}) != nil {
		return nil
	}
	if need.Write {
		if err := sameSite(r); err != nil {
			return err
		}
	}
	policy, given, err := a.policy(r)
	if err != nil {
		return err
	}
	switch {
	case policy.Operator:
		return nil
	case !given && r.Context().Value(passedKey{}) != nil:
		return denied("an agent passes on only what comes with a token", given)
	case need.Operator:
		return denied("this is for operators", given)
	case !need.Write:
		return nil
	case need.Deploy != "" && (slices.Contains(policy.Deploy, need.Deploy) || slices.Contains(policy.Deploy, "*")):
		return nil
	case loopback(r) && !given:
		return nil
	}
	return denied("changes from another machine need a token that allows them", given)
}

// crossOrigin tells a browser's request for a page of ours from one that a
// page of somebody else has made.
var crossOrigin = http.NewCrossOriginProtection()

// sameSite refuses changes that a foreign web page makes through the browser
// of somebody who may: the browser's machine is trusted, the page is not. A
// page that has rebound its own name to our address is told by that name.
// Other clients send neither Origin nor Sec-Fetch-Site and are not concerned.
func sameSite(r *http.Request) error {
	browser := r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
	err := crossOrigin.Check(r)
	if err == nil && browser && !numericHost(r.Host) {
		err = fmt.Errorf("%s is not this node's own address", r.Host)
	}
	if err == nil {
		return nil
	}
	return model.Errorf(model.CodeDenied, "changes from other web sites are not taken").Because("%v", err).
		Try("use the command line, or this node's own pages by its IP address")
}

// numericHost reports whether a Host header is an IP address or localhost.
func numericHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	return host == "localhost" || net.ParseIP(host) != nil
}

func denied(why string, given bool) error {
	e := model.Errorf(model.CodeDenied, "Permission denied").Because("%s", why)
	if given {
		return e.Try("use a token with that right")
	}
	return e.Try("give a token (Authorization: Bearer, X-Consul-Token, or Basic with the token as password), or run it on a node")
}

// Dialect is API for the dialects that know reading and writing only.
func (a access) Dialect(r *http.Request, write bool) error {
	return a.API(r, api.Need{Write: write})
}

// policy finds the token of a request and what it allows.
func (a access) policy(r *http.Request) (p model.Policy, given bool, err error) {
	secret := credential(r)
	if secret == "" {
		return p, false, nil
	}
	t := a.token(secret, time.Now())
	if t == nil {
		return p, true, model.Errorf(model.CodeDenied, "the token is not valid").Because("it is unknown, revoked or expired").
			Try("make one with: appliance token create")
	}
	return t.Policy, true, nil
}

// credential is the secret of a request in its dialect's place, "" if none.
func credential(r *http.Request) string {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return bearer
	}
	if _, pass, ok := r.BasicAuth(); ok {
		return pass
	}
	return r.Header.Get("X-Consul-Token")
}

// token finds the API token with that secret, nil if there is none.
func (a access) token(secret string, now time.Time) *model.APIToken {
	parts := strings.Split(secret, "_")
	if len(parts) != 3 || parts[0] != "appl" {
		return nil
	}
	t := state.APITokens.Get(a.store.Snapshot(), parts[1])
	if t == nil || subtle.ConstantTimeCompare(t.Hash, hashSecret(parts[2])) != 1 {
		return nil
	}
	if !t.ExpiresAt.IsZero() && now.After(t.ExpiresAt) {
		return nil
	}
	return t
}

func loopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// Registry implements registry.Authorizer: pulls are open inside the cluster,
// pushes always need a token, because every process of a machine can reach
// its loopback.
func (a access) Registry(ctx context.Context, r *http.Request, _ string, action registry.Action) error {
	if r.Context().Value(rootKey{}) != nil || action == registry.Pull || action == registry.List {
		return nil
	}
	p, given, err := a.policy(r)
	var e *model.Error
	switch {
	case errors.As(err, &e), !given:
		return registry.ErrUnauthorized
	case p.Operator || p.Push && action != registry.Delete || action == registry.Login:
		return nil
	}
	return fmt.Errorf("%w: the token does not allow to %s", registry.ErrDenied, action)
}
