package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// announce tells the cluster of this node at every start, and goes on trying
// until it is heard.
func (n *Node) announce(ctx context.Context) error {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := command.Do(try, n.proposer, &command.UpdateNode{Node: n.self(try), At: time.Now().UTC()})
		cancel()
		var e *model.Error
		switch {
		case err == nil:
			n.certifyAddress(ctx) // masters sign for the address that the state has now
			<-ctx.Done()
			return nil
		case errors.As(err, &e) && e.Code == model.CodeNotFound && n.core.fresh() && !n.founding():
			return model.Errorf(model.CodeDenied, "this machine is not of the cluster any more").Because("%v", err).
				Try("to join again: appliance leave --accept-risk=lose-local-data, then appliance join")
		}
		pause(ctx, 500*time.Millisecond)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// self is this node as the cluster should know it.
func (n *Node) self(ctx context.Context) model.Node {
	out := model.Node{ID: n.cfg.ID, Name: n.cfg.Name, Role: n.cfg.Role, Addr: n.cfg.Advertise, Attributes: n.cfg.Attributes,
		Version: n.version, Level: command.Speaks, Ingress: n.cfg.Ingress, StartedAt: time.Now().UTC()}
	if n.runtime != nil {
		out.Capacity = capacity(n.cfg)
		out.PortRange = [2]int{31000, 32000} // as Mesos agents offer
		out.Runtime = n.runtime.Name()
		if info, err := n.runtime.Info(ctx); err == nil {
			out.Runtime += " " + strings.TrimSuffix(info.Version, "+unknown") // as a library it knows no commit
		}
	}
	return out
}
