package api

import (
	"slices"
	"strings"

	"appliance/node/model"
	"appliance/raft/state"
)

// RiskLoseLocalData is the word for the loss of what only one machine has.
const RiskLoseLocalData = "lose-local-data"

// mayRemove refuses to forget a node that is there, or that the cluster cannot do without.
func (s *Server) mayRemove(n *model.Node, risk string) error {
	switch {
	case n.Status == model.NodeLeft:
		return nil
	case n.ID == s.Cluster.Self(), n.Status == model.NodeReady && s.Cluster.Alive(n.ID):
		return model.Errorf(model.CodeConflict, "node %s is alive", n.Name).Because("only a node that is gone can be removed from elsewhere").
			Try("on %s: appliance leave --accept-risk=%s; to move its instances off only: appliance drain %s", n.Name, RiskLoseLocalData, n.Name)
	case n.Status == model.NodeReady:
		return model.Errorf(model.CodeConflict, "node %s has not been given up yet", n.Name).Because("it is silent, and may come back").
			Try("try again when it is down: appliance nodes")
	}
	if err := s.majorityWithout(n); err != nil {
		return err
	}
	if only := onlyCopies(s.Store.Snapshot(), n.ID); len(only) > 0 && risk != RiskLoseLocalData {
		return model.Errorf(model.CodeDenied, "only node %s has the latest data of volume %s", n.Name, strings.Join(only, ", ")).
			Because("it cannot come back as the same node after it was removed").
			Try("bring it back; or, if it is lost for ever: appliance nodes rm %s --accept-risk=%s", n.Name, RiskLoseLocalData)
	}
	return nil
}

// majorityWithout refuses to take a voter away if the others could not decide then.
func (s *Server) majorityWithout(n *model.Node) error {
	votes := s.Cluster.Votes()
	if !slices.Contains(votes, n.ID) {
		return nil
	}
	rest, there := 0, 0
	for _, id := range votes {
		if id == n.ID {
			continue
		}
		if rest++; s.Cluster.Alive(id) {
			there++
		}
	}
	if there > rest/2 {
		return nil
	}
	return model.Errorf(model.CodeConflict, "master %s cannot be removed now", n.Name).
		Because("%d of the %d masters that would remain answer, which is no majority", there, rest).
		Try("bring the others back first; if they are lost for ever: appliance recover on one that is left")
}

// onlyCopies are the volumes of which a node alone has all that was acknowledged.
func onlyCopies(snap *state.Snapshot, node string) (names []string) {
	for v := range state.Volumes.All(snap) {
		if v.Primary == node && !slices.ContainsFunc(v.InSync, func(id string) bool { return id != node }) {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names
}
