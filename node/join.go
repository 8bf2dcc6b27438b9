package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft/command"
	"appliance/raft/state"
)

// joinRequest is what a machine says to be admitted.
type joinRequest struct {
	Token      string            `json:"token"`
	CSR        []byte            `json:"csr"`
	Name       string            `json:"name"`
	Role       model.Role        `json:"role"`
	Addr       string            `json:"addr"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Level      int               `json:"level,omitempty"` // protocol level that the machine's binary speaks
}

// joinAnswer is what makes the machine a node.
type joinAnswer struct {
	ID       string            `json:"id"`
	Chain    []byte            `json:"chain"`
	CA       []byte            `json:"ca"`               // all that are believed, the one that signs first
	CAKey    []byte            `json:"caKey,omitempty"`  // masters only; of the first
	Gossip   []byte            `json:"gossip"`           // the key that is sent with
	Others   [][]byte          `json:"others,omitempty"` // further gossip keys, while they are rotated
	Keys     map[string][]byte `json:"keys,omitempty"`   // masters only: further private keys by id
	Masters  []string          `json:"masters"`
	VIP      string            `json:"vip,omitempty"`
	Replaced string            `json:"replaced,omitempty"`
	// Generation is that of the log; masters only.
	Generation generation `json:"generation,omitzero"`
}

// Joined is what the user of join is told.
type Joined struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Cluster  string `json:"cluster"`
	Replaced string `json:"replaced,omitempty"` // id of a former node of that name
}

// maxJoinBody bounds both directions of a join.
const maxJoinBody = 1 << 20

// Join admits this machine to the cluster of the master at addr. Nothing is
// written unless the master accepted; nothing is started.
func Join(ctx context.Context, c Config, token, addr string) (Joined, error) {
	var out Joined
	tok, err := pki.ParseToken(token)
	if err != nil {
		return out, model.Errorf(model.CodeInvalid, "%v", err)
	}
	if c.Role == "" {
		c.Role = tok.Role
	}
	if c.Role != tok.Role {
		return out, model.Errorf(model.CodeInvalid, "the token is for a %s, not for a %s", tok.Role, c.Role).Try("use the token for that role")
	}
	if err := c.validate(); err != nil {
		return out, err
	}
	if err := c.claim(); err != nil {
		return out, err
	}
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		return out, err
	}
	ans, err := askToJoin(ctx, wire.JoinClient(&tok, nil, nil), withPort(addr), joinRequest{
		Token: token, CSR: req.CSR, Name: c.Name, Role: c.Role, Addr: c.Advertise, Attributes: c.Attributes, Level: command.Speaks})
	if err != nil {
		return out, err
	}
	if err := settle(c, ans, req.Key); err != nil {
		return out, err
	}
	return Joined{ID: ans.ID, Name: c.Name, Role: string(c.Role), Replaced: ans.Replaced}, nil
}

// settle writes what the master gave; the configuration last.
func settle(c Config, ans joinAnswer, key []byte) error {
	if err := c.pki().SaveCA(ans.CA, ans.CAKey); err != nil {
		return err
	}
	if err := c.pki().SaveNode(ans.Chain, key); err != nil {
		return err
	}
	for id, key := range ans.Keys {
		if err := c.pki().SaveKey(id, key); err != nil {
			return err
		}
	}
	if err := c.pki().SaveGossipKeys(append([][]byte{ans.Gossip}, ans.Others...)); err != nil {
		return err
	}
	if c.VIP == "" && c.Role == model.RoleMaster {
		c.VIP = ans.VIP
	}
	c.ID, c.Masters = ans.ID, ans.Masters
	if ans.Generation.Number > 1 {
		if err := ans.Generation.save(c); err != nil {
			return err
		}
	}
	return c.save()
}

func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), strconv.Itoa(wire.Port))
}

func askToJoin(ctx context.Context, client *http.Client, addr string, req joinRequest) (joinAnswer, error) {
	var ans joinAnswer
	err := postJSON(ctx, client, "https://"+addr+"/join", req, &ans)
	var e *model.Error
	switch {
	case err == nil, errors.As(err, &e):
		return ans, err
	case errors.Is(err, pki.ErrCADigest):
		return ans, model.Errorf(model.CodeDenied, "the machine at %s is not of the cluster that the token is for", addr).
			Because("its CA is another one").Try("check the address and the token; if both are right somebody may be in between")
	}
	return ans, model.Errorf(model.CodeUnavailable, "the master at %s did not answer", addr).Because("%v", err).
		Try("check the address and that appliance runs there, or name another master")
}

// postJSON makes one call between nodes. An error answer comes back as it was
// made there.
func postJSON(ctx context.Context, client *http.Client, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxJoinBody))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		e := &model.Error{}
		if json.Unmarshal(raw, e) != nil || e.What == "" {
			return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(raw))
		}
		return e
	}
	return json.Unmarshal(raw, out)
}

// issue signs the certificate of a node. The names in the request count for
// nothing; the master decides.
func issue(ca *pki.CA, now time.Time, csr []byte, id, name string, role model.Role, addr string) ([]byte, error) {
	who := pki.Identity{Cluster: ca.Cluster, ID: id, Name: name, Role: role}
	return ca.Issue(rand.Reader, now, csr, who, []net.IP{net.ParseIP(addr)})
}

// admission serves the join protocol of a master.
type admission struct {
	ca       *authority
	gossip   func() [][]byte
	store    *state.Store
	proposer command.Proposer
	sync     func(context.Context) error
	masters  func() []string
	// generation of the log, which new masters are to keep.
	generation generation
}

func (a *admission) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /join", serveJSON(a.join))
	mux.HandleFunc("POST /renew", serveJSON(a.renew))
	mux.HandleFunc("POST "+pathTrust, serveJSON(func(context.Context, struct{}) (trustAnswer, error) { return trustAnswer{CAs: a.ca.bundle()}, nil }))
	return mux
}

// serveJSON turns a function into a handler of calls between nodes.
func serveJSON[In, Out any](fn func(ctx context.Context, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		status := http.StatusOK
		var answer any
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinBody)).Decode(&in)
		if err != nil {
			err = model.Errorf(model.CodeInvalid, "the request cannot be read").Because("%v", err)
		} else {
			answer, err = fn(r.Context(), in)
		}
		if err != nil {
			status = http.StatusConflict
			var e *model.Error
			if !errors.As(err, &e) {
				e = model.Errorf(model.CodeInternal, "%v", err)
			}
			answer = e
		}
		raw, err := json.Marshal(answer)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write(raw) // the caller is gone if this fails
	}
}

func (a *admission) join(ctx context.Context, req joinRequest) (joinAnswer, error) {
	var ans joinAnswer
	now := time.Now().UTC()
	if err := a.sync(ctx); err != nil {
		return ans, err
	}
	tok, err := pki.ParseToken(req.Token)
	if err != nil {
		return ans, model.Errorf(model.CodeInvalid, "%v", err)
	}
	snap := a.store.Snapshot()
	if err := tok.Check(state.JoinTokens.Get(snap, tok.ID), now); err != nil {
		return ans, model.Errorf(model.CodeDenied, "%v", err)
	}
	who := Config{Name: req.Name, Role: req.Role, Advertise: req.Addr}
	if err := who.validate(); err != nil {
		return ans, err
	}
	// A node that has joined but never started counts as down, so that a
	// join whose answer was lost may be repeated.
	n := model.Node{ID: newID(), Name: req.Name, Role: req.Role, Addr: req.Addr, Attributes: req.Attributes, Level: req.Level,
		JoinedAt: now, Status: model.NodeDown, StatusSince: now, StatusWhy: "has joined and not started yet"}
	chain, err := a.ca.sign(req.CSR, n.ID, n.Name, n.Role, n.Addr)
	if err != nil {
		return ans, model.Errorf(model.CodeInvalid, "the certificate request was refused").Because("%v", err)
	}
	res, err := command.Do(ctx, a.proposer, &command.RegisterNode{Node: n, Token: tok.ID, At: now})
	if err != nil {
		return ans, err
	}
	var reg command.Registered
	if err := res.Decode(&reg); err != nil {
		return ans, err
	}
	gossip := a.gossip()
	ans = joinAnswer{ID: n.ID, Chain: chain, CA: a.ca.bundle(), Gossip: gossip[0], Others: gossip[1:], Masters: a.masters(), Replaced: reg.Replaced}
	for c := range state.Clusters.All(snap) {
		ans.VIP = c.VIP
	}
	if n.Role == model.RoleMaster {
		ans.Generation = a.generation
		ans.CAKey, ans.Keys, err = a.ca.private(ans.CA)
	}
	return ans, err
}

// renewRequest asks for a new certificate; the connection's own certificate,
// even one that ran out lately, says for whom.
type renewRequest struct {
	CSR []byte `json:"csr"`
}

type renewAnswer struct {
	Chain []byte `json:"chain"`
}

func (a *admission) renew(ctx context.Context, req renewRequest) (renewAnswer, error) {
	peer, ok := wire.PeerFrom(ctx)
	if !ok || !peer.Known() {
		return renewAnswer{}, model.Errorf(model.CodeDenied, "a certificate is renewed only for its holder").Try("join this machine again")
	}
	n, err := a.mayRenew(ctx, peer, time.Now())
	if err != nil {
		return renewAnswer{}, err
	}
	chain, err := a.ca.sign(req.CSR, n.ID, n.Name, n.Role, n.Addr)
	return renewAnswer{Chain: chain}, err
}
