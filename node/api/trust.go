package api

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// RiskLeaveNodes is what the end of a CA's rotation without nodes that are
// down has to be told that it accepts.
const RiskLeaveNodes = "leave-nodes-behind"

// Trust is the answer of GET /trust: the keys of the cluster, public sides only.
type Trust struct {
	Rings []RingView `json:"rings"`
}

// RingView is one ring of keys.
type RingView struct {
	Name  model.RingName `json:"name"`
	Phase model.Phase    `json:"phase,omitempty"` // none: no rotation is under way
	Since time.Time      `json:"since"`
	Keys  []KeyView      `json:"keys"`
	// Lacks are the nodes that the rotation waits for or goes on without.
	Lacks []model.Lack `json:"lacks,omitempty"`
	// Secrets is how many secrets are sealed with keys of this ring; Lost are
	// those whose key no ring has.
	Secrets int      `json:"secrets,omitempty"`
	Lost    []string `json:"lost,omitempty"`
}

// KeyView is a key.
type KeyView struct {
	ID      string    `json:"id"`
	Use     string    `json:"use"` // active, next, old
	Added   time.Time `json:"added"`
	Expires time.Time `json:"expires,omitzero"` // CA only
}

// TrustRequest is the body of POST /trust.
type TrustRequest struct {
	Ring model.RingName `json:"ring"`
	Step string         `json:"step"` // begin, abort or leave
	Risk string         `json:"risk,omitempty"`
}

func (s *Server) trustRoutes() {
	s.get("/trust", s.trust)
	operate(s, "/trust", s.turnTrust)
	operate(s, "/tokens/join/rotate", s.rotateToken)
}

func (s *Server) trust(_ *http.Request, snap *state.Snapshot) (any, error) {
	return trustView(snap), nil
}

func trustView(snap *state.Snapshot) Trust {
	out := Trust{Rings: []RingView{}}
	for c := range state.Clusters.All(snap) {
		if c.Trust == nil {
			break
		}
		for _, name := range model.RingNames {
			out.Rings = append(out.Rings, ringView(snap, c.Trust, name))
		}
	}
	return out
}

func ringView(snap *state.Snapshot, t *model.Trust, name model.RingName) RingView {
	r := t.Ring(name)
	v := RingView{Name: name, Phase: r.Phase, Since: r.Since, Keys: []KeyView{}}
	for _, k := range r.Keys {
		use := "old"
		switch k.ID {
		case r.Active:
			use = "active"
		case r.Next:
			use = "next"
		}
		v.Keys = append(v.Keys, KeyView{ID: k.ID, Use: use, Added: k.AddedAt, Expires: expiry(k.Cert)})
	}
	for n := range state.Nodes.All(snap) {
		if what, waits := t.Lacking(name, n); what != "" {
			v.Lacks = append(v.Lacks, model.Lack{Node: n.ID, Name: n.Name, Status: n.Status, What: what, Waits: waits})
		}
	}
	slices.SortFunc(v.Lacks, func(a, b model.Lack) int { return cmp.Compare(a.Name, b.Name) })
	if name == model.RingSeal {
		for secret := range state.Secrets.All(snap) {
			v.Secrets++
			if !r.Has(secret.Key) {
				v.Lost = append(v.Lost, secret.ID())
			}
		}
	}
	return v
}

func expiry(cert []byte) time.Time {
	block, _ := pem.Decode(cert)
	if block == nil {
		return time.Time{}
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return c.NotAfter
}

// turnTrust takes the steps that are an operator's; the leader takes the rest.
func (s *Server) turnTrust(ctx context.Context, req *TrustRequest) (any, error) {
	c := &command.RotateKey{Ring: req.Ring, Step: req.Step, At: time.Now().UTC()}
	switch req.Step {
	case command.StepBegin, command.StepAbort:
	case command.StepLeave:
		if err := s.Cluster.Sync(ctx); err != nil {
			return nil, err
		}
		nodes, err := leaving(s.Store.Snapshot(), req)
		if err != nil {
			return nil, err
		}
		c.Nodes = nodes
	default:
		return nil, model.Errorf(model.CodeInvalid, "a rotation has no step %q for you", req.Step).Try("use begin, abort or leave")
	}
	if _, err := command.Do(ctx, s.Proposer, c); err != nil {
		return nil, err
	}
	return trustView(s.Store.Snapshot()), nil
}

// leaving are the nodes that are down and hold up the end of the rotation.
func leaving(snap *state.Snapshot, req *TrustRequest) ([]string, error) {
	var ids []string
	names := ""
	for _, r := range trustView(snap).Rings {
		for _, l := range r.Lacks {
			if r.Name == req.Ring && r.Phase == model.PhaseSwitch && l.Waits && l.Status == model.NodeDown {
				ids = append(ids, l.Node)
				names += " " + l.Name
			}
		}
	}
	if len(ids) == 0 {
		return nil, model.Errorf(model.CodeConflict, "the rotation does not wait for a node that is down").Try("see: appliance ca")
	}
	if req.Risk != RiskLeaveNodes {
		return nil, model.Errorf(model.CodeInvalid, "nodes that are down would have to join again").
			Because("their certificates are of the old CA:%s", names).Try("if that is meant: --accept-risk=%s", RiskLeaveNodes)
	}
	return ids, nil
}
