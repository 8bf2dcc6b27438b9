package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func (s *Server) drain(ctx context.Context, req *DrainRequest) (any, error) {
	n, err := s.nodeByName(req.Node)
	if err != nil {
		return nil, err
	}
	_, err = command.Do(ctx, s.Proposer, &command.SetNodeDrain{Node: n.ID, Drain: req.Drain, At: time.Now().UTC()})
	return n, err
}

func (s *Server) nodeByName(name string) (*model.Node, error) {
	snap := s.Store.Snapshot()
	var known []string
	for n := range state.Nodes.All(snap) {
		if n.Name == name || n.ID == name {
			return n, nil
		}
		known = append(known, n.Name)
	}
	slices.Sort(known)
	return nil, model.Errorf(model.CodeNotFound, "there is no node %s", name).Because("known are: %s", strings.Join(known, " "))
}

func (s *Server) putEnvironment(ctx context.Context, req *model.Environment) (any, error) {
	if !label.MatchString(req.Name) {
		return nil, model.Errorf(model.CodeInvalid, "%q cannot name an environment", req.Name).
			Because("it becomes a part of host names").Try("use small letters, digits and dashes")
	}
	if req.Selector == nil {
		req.Selector = map[string]string{"env": req.Name}
	}
	_, err := command.Do(ctx, s.Proposer, &command.PutEnvironment{Environment: *req})
	return req, err
}

func (s *Server) removeNode(w http.ResponseWriter, r *http.Request) error {
	n, err := s.nodeByName(r.PathValue("name"))
	if err != nil {
		return err
	}
	if err := s.mayRemove(n, r.URL.Query().Get("accept-risk")); err != nil {
		return err
	}
	return s.done(w, r, &command.RemoveNode{Node: n.ID, At: time.Now().UTC()})
}

func (s *Server) removeVolume(w http.ResponseWriter, r *http.Request) error {
	return s.done(w, r, &command.DeleteVolume{Name: r.PathValue("name")})
}

func (s *Server) done(w http.ResponseWriter, r *http.Request, c command.Command) error {
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	if _, err := command.Do(ctx, s.Proposer, c); err != nil {
		return err
	}
	return answer(w, http.StatusOK, struct{}{})
}

// leave tells the cluster that this node goes: its instances are replaced at
// once, and a master is taken out of the log.
func (s *Server) leave(ctx context.Context, _ *struct{}) (any, error) {
	_, err := command.Do(ctx, s.Proposer, &command.SetNodeStatus{Node: s.Cluster.Self(), Status: model.NodeLeft, Why: "it left", At: time.Now().UTC()})
	return struct{}{}, err
}
