package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"appliance/discovery/consul"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/feed"
	"appliance/raft/state"
)

// core is a node's part in the log: a master votes, an agent follows. Both
// have the whole state in memory and can propose and read linearizably.
type core interface {
	Propose(ctx context.Context, data []byte) (uint64, any, error)
	ReadIndex(ctx context.Context) (uint64, error)
	Linearize(ctx context.Context) error
	Run(ctx context.Context) error
	leader() string // node id, "" if unknown
	fresh() bool
}

// voter is the core of a master.
type voter struct {
	*raft.Node
	feed    *feed.Server
	mayDial atomic.Bool // see openGeneration
}

func openVoter(c Config, generation uint64, replica *raft.Replica, srv *wire.Server, d *wire.Dialer, mux *http.ServeMux, authorize raft.Authorize, locate func(string) string, done <-chan struct{}, log *slog.Logger) (*voter, error) {
	v := &voter{}
	rc := c.raft(replica, log)
	rc.Listener, rc.Client, rc.Authorize = srv.Listener(wire.RaftProtocol(generation)), d.Client(), authorize
	rc.Locate = locate
	rc.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		return v.dialRaft(ctx, d, generation, addr)
	}
	n, err := raft.Open(rc)
	if err != nil {
		return nil, damaged(err)
	}
	v.Node, v.feed = n, feed.NewServer(n, log, done)
	n.Mount(mux)
	v.feed.Mount(mux)
	return v, nil
}

func (v *voter) leader() string { id, _ := v.Leader(); return id }

func (v *voter) fresh() bool { return v.leader() != "" }

// follower is the core of an agent.
type follower struct {
	*raft.Remote
	feed  *feed.Follower
	store *state.Store
}

func openFollower(c Config, replica *raft.Replica, d *wire.Dialer, store *state.Store, masters func() []string, log *slog.Logger) (*follower, error) {
	f, err := feed.NewFollower(feed.Config{Replica: replica, Client: d.Client(), Masters: masters, Dir: c.dir(feedDir), Log: log})
	if err != nil {
		return nil, err
	}
	return &follower{Remote: raft.NewRemote(replica, d.Client(), masters), feed: f, store: store}, nil
}

// leader is who said so last, unless nobody can be asked.
func (f *follower) leader() string {
	if !f.fresh() {
		return ""
	}
	return toldLeader(f.store.Snapshot())
}

// heard is as of when this node knows the state of the cluster, zero if it knows none.
func (f *follower) heard() time.Time {
	st := f.feed.Status()
	if st.Contact.IsZero() {
		return st.Loaded
	}
	return st.Contact
}

func (f *follower) fresh() bool { return !f.feed.Status().Stale(time.Now()) }

// Run follows until ctx ends.
func (f *follower) Run(ctx context.Context) error {
	defer f.Remote.Close()
	return f.feed.Run(ctx)
}

// proposer is the node's command.Proposer.
type proposer struct{ core core }

func (p proposer) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	raw, err := command.Encode(c)
	if err != nil {
		return command.Result{}, err
	}
	return p.commit(ctx, c, raw)
}

// compact is a proposer that writes the binary form as soon as every node of the cluster reads it.
type compact struct {
	proposer
	store *state.Store
}

func (p compact) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	raw, err := command.EncodeFor(c, command.ClusterLevel(p.store.Snapshot()))
	if err != nil {
		return command.Result{}, err
	}
	return p.commit(ctx, c, raw)
}

// commit proposes the encoded c.
func (p proposer) commit(ctx context.Context, c command.Command, raw []byte) (command.Result, error) {
	_, v, err := p.core.Propose(ctx, raw)
	if err != nil {
		return command.Result{}, unavailable(err)
	}
	switch v := v.(type) {
	case command.Result:
		return v, nil
	case error:
		return command.Result{}, unavailable(v)
	}
	return command.Result{}, fmt.Errorf("%T: unexpected result %T", c, v)
}

// unavailable says in the user's words why a change did not get through.
func unavailable(err error) error {
	switch {
	case errors.Is(err, raft.ErrNoLeader), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.CodeUnavailable, "the cluster cannot take changes now").Because("%s", leaderless(err)).
			Try("a majority of the masters must be alive and reach each other; see appliance status")
	case errors.Is(err, raft.ErrUnknownOutcome):
		return model.Errorf(model.CodeUnavailable, "it is not known whether the change was made").Because("%v", err).
			Try("look at the present state before trying again")
	case errors.Is(err, raft.ErrDisk):
		return model.Errorf(model.CodeExhausted, "the log cannot be written").Because("%v", err).Try("free some space on the leader's disk")
	case errors.Is(err, raft.ErrDenied):
		return model.Errorf(model.CodeDenied, "this node may not make the change").Because("%v", err).Try("run it on a master")
	}
	return err
}

// leaderless is why no leader was reached, without the path to it.
func leaderless(err error) string {
	var op *net.OpError
	switch {
	case !errors.Is(err, raft.ErrNoLeader), errors.Is(err, raft.ErrDisk):
		return err.Error()
	case errors.As(err, &op):
		return "no master that could lead answers (" + op.Err.Error() + "); nothing was changed"
	}
	return "no master leads; nothing was changed"
}

// authorize says which proposals an agent may send. Agents speak for
// themselves and pass on what users ask of their dialects; who may join, what
// tokens exist and which nodes live is the masters' business.
func authorize(peer wire.Peer, payload []byte) error {
	if peer.Role == model.RoleMaster {
		return nil
	}
	c, err := command.Decode(payload)
	if err != nil {
		return err
	}
	if a, ok := c.(*command.Audited); ok {
		if a.Actor.Node != peer.ID {
			return fmt.Errorf("node %s may not say what users of node %s want", peer.ID, a.Actor.Node)
		}
		c = a.Inner
	}
	switch c := c.(type) {
	case *command.Observe:
		if c.Node != peer.ID {
			return fmt.Errorf("node %s may not report for node %s", peer.ID, c.Node)
		}
	case *command.UpdateNode:
		if c.Node.ID != peer.ID {
			return fmt.Errorf("node %s may not speak for node %s", peer.ID, c.Node.ID)
		}
	case *command.ReportTrust:
		if c.Node != peer.ID {
			return fmt.Errorf("node %s may not speak for node %s", peer.ID, c.Node)
		}
	case *command.SetNodeStatus:
		if c.Node != peer.ID || c.Status != model.NodeLeft {
			return fmt.Errorf("node %s may only say that it leaves itself", peer.ID)
		}
	case *command.RecordEvent:
		if c.Event.Kind != consul.UserEvent {
			return fmt.Errorf("an agent may not write the cluster's history")
		}
	case *command.CreateRelease, *command.ScaleApp, *command.DeleteApp, *command.KVTxn, *command.PutSession, *command.RenewSession,
		*command.DestroySession, *command.RegisterService, *command.DeregisterService, *command.UpdateCheck, *command.DeregisterCheck,
		*command.PutManifest, *command.DeleteManifest, *command.DeleteTag:
	default:
		return fmt.Errorf("an agent may not propose %T", c)
	}
	return nil
}
