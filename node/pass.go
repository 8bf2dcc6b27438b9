package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/command"
	"appliance/raft/state"
)

// pathPassed is where a master takes what users of an agent ask and only a
// master may do. The agent's certificate is worth nothing there: the token in
// the request decides, as if it had come to the master's own API.
const pathPassed = "/rpc/pass"

const (
	// passTimeout bounds one request: a restore takes a master up to two
	// minutes, and the file has to get there.
	passTimeout = 3 * time.Minute
	// maxPassed bounds those under way; an operator makes one at a time.
	maxPassed = 16
	// maxOrigin bounds what an agent says of where a request comes from.
	maxOrigin = 64
)

// passedHeaders go on with a request: who asks, in what words, and what a
// browser says of the page that does.
var passedHeaders = []string{"Authorization", "X-Consul-Token", "Content-Type", "Origin", "Sec-Fetch-Site"}

// passer takes operators' requests from an agent to a master. An agent has no
// right to them itself, nor has root on it.
type passer struct {
	masters func() []string // wire addresses, the best first
	names   func() []string
	known   func(ctx context.Context, r *http.Request) error // whether the request has a token that is one
	client  *http.Client
	slots   chan struct{}
}

func (n *Node) newPasser() *passer {
	return &passer{masters: n.mastersByRank, names: n.masterNames, known: n.knownToken, client: n.dialer.BulkClient(), slots: make(chan struct{}, maxPassed)}
}

// pass implements api.Server.Pass.
func (p *passer) pass(w http.ResponseWriter, r *http.Request) error {
	if credential(r) == "" {
		return model.Errorf(model.CodeDenied, "an agent may not do this by itself").
			Because("it is for operators, and root on an agent is none").
			Try("run it on a master (%s), or give an operator's token: --token or APPLIANCE_TOKEN; a master makes one: appliance token create --name NAME --operator", strings.Join(p.names(), " "))
	}
	if err := p.known(r.Context(), r); err != nil { // who has none takes no slot, and the body stays unread
		return err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return model.Errorf(model.CodeExhausted, "this agent passes on %d requests already", maxPassed).Try("try again in a moment, or on a master")
	}
	ctx, cancel := context.WithTimeout(r.Context(), passTimeout)
	defer cancel()
	resp, err := p.send(ctx, r, http.MaxBytesReader(w, r.Body, command.MaxRestore+1)) // the master says what is too long
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode == http.StatusNotFound && !strings.HasPrefix(kind, "application/json") {
		return model.Errorf(model.CodeUnavailable, "the masters do not take this from agents yet").
			Because("one runs an older version; nothing was changed").Try("run it on a master (%s), or upgrade them: appliance upgrade", strings.Join(p.names(), " "))
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // one of both is gone if this fails
	return nil
}

// knownToken looks at a request's token, again with the newest state if this node does not know it: it may
// just have been made.
func (n *Node) knownToken(ctx context.Context, r *http.Request) error {
	_, _, err := n.access.policy(r)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	if n.core.Linearize(ctx) == nil {
		_, _, err = n.access.policy(r)
	}
	return err
}

// send asks one master after the other until one is reached. What was sent is
// not sent again: it may have been done.
func (p *passer) send(ctx context.Context, r *http.Request, body io.Reader) (*http.Response, error) {
	why := "no master is known"
	for _, addr := range p.masters() {
		reached := false
		trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached = true }}
		out, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), r.Method, "https://"+addr+pathPassed+r.URL.EscapedPath(), io.NopCloser(body))
		if err != nil {
			return nil, err
		}
		out.URL.RawQuery, out.Host, out.ContentLength = r.URL.RawQuery, r.Host, r.ContentLength
		if r.ContentLength == 0 {
			out.Body = nil
		}
		for _, name := range passedHeaders {
			if v := r.Header[name]; len(v) > 0 {
				out.Header[name] = v
			}
		}
		out.Header.Set(headerFrom, origin(r))
		resp, err := p.client.Do(out)
		if err == nil {
			return resp, nil
		}
		if reached {
			return nil, model.Errorf(model.CodeUnavailable, "it is not known whether the change was made").
				Because("the master at %s was asked and did not answer: %v", addr, err).Try("look at the present state before trying again")
		}
		why = "the master at " + addr + " does not answer: " + dialed(err)
	}
	return nil, model.Errorf(model.CodeUnavailable, "no master can be reached").Because("%s; nothing was changed", why).
		Try("see which run: appliance status")
}

// dialed is why a connection was not made, without the path to it.
func dialed(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// mastersByRank are the masters' wire addresses, the leader first and those
// that seem dead last.
func (n *Node) mastersByRank() []string {
	rank := map[string]int{}
	for m := range state.Nodes.All(n.store.Snapshot()) {
		switch {
		case m.ID == n.core.leader():
			rank[n.masters.where.of(m)] = -1
		case !n.alive(m.ID):
			rank[n.masters.where.of(m)] = 1
		}
	}
	out := slices.Clone(n.masters.list())
	slices.SortStableFunc(out, func(a, b string) int { return rank[a] - rank[b] })
	return out
}

func (n *Node) masterNames() (out []string) {
	for m := range state.Nodes.All(n.store.Snapshot()) {
		if m.Role == model.RoleMaster && m.Status != model.NodeLeft {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// passedKey marks requests that an agent passes on: nothing but their token
// gives them a right.
type passedKey struct{}

// takePassed serves at a master what agents pass on to its API.
func (n *Node) takePassed(h http.Handler) http.Handler {
	return http.StripPrefix(pathPassed, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := wire.PeerFrom(r.Context())
		if node := state.Nodes.Get(n.store.Snapshot(), peer.ID); node == nil || node.Status == model.NodeLeft {
			api.Refuse(w, model.Errorf(model.CodeDenied, "only nodes of the cluster pass requests on"))
			return
		}
		from := r.Header.Get(headerFrom)
		from = from[:min(len(from), maxOrigin)] + " by " + peer.Name
		actor := func() model.Actor {
			return model.Actor{Who: n.access.who(r), From: from, Via: r.Method + " " + r.URL.Path}
		}
		ctx := context.WithValue(context.WithValue(r.Context(), passedKey{}, true), actorKey{}, actor)
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
}
