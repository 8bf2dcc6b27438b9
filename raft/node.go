package raft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Config says how to open a Node. All fields but Authorize, Peer and Locate are needed.
type Config struct {
	ID   string // stable node id
	Addr string // host:port at which the other masters reach this one
	Dir  string // data directory; created if missing
	// Witness keeps second copies of what is small and must not be lost: vote, term, position. It is best
	// outside of Dir; empty means Dir/witness.
	Witness string
	// Aside is where damaged files go that are not needed; empty means Dir/damaged.
	Aside string

	Replica  *Replica
	Listener net.Listener // of wire.Raft; the node owns it
	// Dial connects to a master for raft (wire.Dialer.Dial with wire.Raft).
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Client does internal RPC (wire.Dialer.Client).
	Client *http.Client
	Log    *slog.Logger
	// Locate returns where a master is now, "" if that is not known; nil: where the log's configuration
	// says. It is called often and from many goroutines.
	Locate func(id string) string
	// Peer returns the id of the node at the other end of what Dial returned, "" if it has none; nil: that
	// in its certificate.
	Peer func(net.Conn) string
	// Authorize decides whether a peer may propose payload; nil allows everything.
	Authorize Authorize

	// SnapshotEntries is how many entries make a new snapshot; 0 means 16384.
	SnapshotEntries uint64
	// TrailingEntries is how many entries are kept behind a snapshot; 0 means 20480.
	TrailingEntries uint64
	// Storage replaces the files in Dir; the node owns it. nil except in simulations.
	Storage Storage
}

func (c Config) witness() string { return cmp.Or(c.Witness, filepath.Join(c.Dir, "witness")) }

func (c Config) aside() string { return cmp.Or(c.Aside, filepath.Join(c.Dir, "damaged")) }

// trailingLogs is how many entries are kept behind a snapshot, so that a master that was away shortly
// catches up from the log. It covers the write rate times the duration of a snapshot.
const trailingLogs = 20480

// Node is a master: it votes, stores the log and applies it. Safe for concurrent use.
type Node struct {
	conf    Config
	log     *slog.Logger
	replica *Replica
	raft    *hraft.Raft
	disk    *disk
	trans   *transport
	rpc     *rpcClient
	pending *pending // proposals under way in the own log
	reads   readBatch
	lead    *lead
	fitness fitness

	proposals gather[*proposal]

	transferSince atomic.Int64 // first refusal because of a leadership transfer, Unix nanoseconds
	fatal         chan error
	ctx           context.Context // ends at Close
	cancel        context.CancelFunc
	closing       atomic.Bool
	closed        chan struct{} // closed when Close is done
	closeErr      error
}

// Open reads the data directory and starts to follow or elect. Run must be called after it.
func Open(c Config) (*Node, error) {
	hlog := newHCLog(c.Log)
	d, err := openDisk(c, hlog)
	if err != nil {
		return nil, err
	}
	n := &Node{
		conf: c, log: c.Log, replica: c.Replica, disk: d, rpc: newRPCClient(c.Client),
		pending: newPending(), fatal: make(chan error, 1), closed: make(chan struct{}),
	}
	n.proposals = gather[*proposal]{hold: appendHold, most: maxAppend, rounds: appendRounds,
		size: func(p *proposal) int { return len(p.env) }, run: n.append}
	if d.checked != nil {
		d.checked.damaged = n.fail
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.reads.ctx = n.ctx
	n.trans = newTransport(stream{Listener: c.Listener, addr: c.Addr, dial: c.Dial, peer: c.Peer}, hlog)
	n.trans.where = c.Locate
	n.lead = newLead(n)
	if n.raft, err = hraft.NewRaft(n.raftConfig(hlog), fsm{c.Replica}, d.log, lateStable{d.stable, &d.closed}, d.snaps, n.trans); err != nil {
		n.cancel()
		n.lead.close()
		n.trans.Close()
		d.close()
		if halted := c.Replica.Err(); halted != nil {
			err = halted // raft says only that no snapshot could be loaded
		}
		return nil, fmt.Errorf("start raft from %s: %w", c.Dir, err)
	}
	n.trans.wg.Go(func() { n.trans.receive(receiver{n.raft, d.log, hraft.ServerID(n.conf.ID)}) })
	return n, nil
}

// Bootstrap makes the first configuration of a new cluster. It is an error on a node that has a log.
func (n *Node) Bootstrap(servers []Server) error {
	var conf hraft.Configuration
	for _, s := range servers {
		conf.Servers = append(conf.Servers, hraft.Server{ID: hraft.ServerID(s.ID), Address: hraft.ServerAddress(s.Addr)})
	}
	err := n.raft.BootstrapCluster(conf).Error()
	if errors.Is(err, hraft.ErrCantBootstrap) {
		return fmt.Errorf("this node already belongs to a cluster (its log in %s is not empty): to make a new one, stop it and remove that directory", n.conf.Dir)
	}
	return err
}

// HasState reports whether the data directory holds a log or snapshot, so Bootstrap must not be called.
func (n *Node) HasState() bool {
	ok, err := hraft.HasExistingState(n.disk.log, n.disk.stable, n.disk.snaps)
	return ok || err != nil
}

// Run runs the leadership hooks until ctx ends, then hands leadership over, stops and closes everything.
// It returns an error if the node can not go on: an entry of an unknown kind, a wedged leadership
// transfer, a disk that hangs. The process must end then, at once.
func (n *Node) Run(ctx context.Context) error {
	hooks, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		var wg sync.WaitGroup
		wg.Go(func() { n.guard(hooks) })
		wg.Go(func() { n.yield(hooks) })
		go n.probe(hooks) // not waited for: it hangs as long as the disk does
		wg.Go(func() { n.succeed(hooks) })
		n.lead.run(hooks)
		wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-ctx.Done():
	case <-n.ctx.Done():
	case <-n.replica.Halted():
		err = n.replica.Err()
	case err = <-n.fatal:
	}
	stop()
	<-done
	if err == nil {
		n.handOver()
		return n.Close()
	}
	// A hung disk also hangs the stop. The process is about to end, which is what frees the cluster.
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	select {
	case e := <-closed:
		return errors.Join(err, e)
	case <-time.After(4 * electionTimeout):
		return err
	}
}

// Close stops at once, as a crash would; Run does so gracefully. It is safe to call twice: every call
// returns when all is closed.
func (n *Node) Close() error {
	if !n.closing.CompareAndSwap(false, true) {
		<-n.closed
		return n.closeErr
	}
	defer close(n.closed)
	n.cancel()
	n.drain()
	err := n.shutdown()
	n.lead.close()
	n.rpc.close()
	n.closeErr = errors.Join(err, n.trans.Close(), n.disk.close())
	return n.closeErr
}

// shutdown stops raft, and closes the pipelines until it has.
func (n *Node) shutdown() error {
	future, done := n.raft.Shutdown(), make(chan error, 1)
	go func() { done <- future.Error() }()
	for {
		n.trans.closePipelines()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// fail ends Run with err.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

// Leader returns id and address of the leader, empty if none is known.
func (n *Node) Leader() (id, addr string) {
	a, i := n.raft.LeaderWithID()
	return string(i), string(a)
}

// IsLeader reports whether this node leads. It may be outdated when it returns: use ReadIndex to read.
func (n *Node) IsLeader() bool { return n.raft.State() == hraft.Leader }

// Replica returns what the log is applied to.
func (n *Node) Replica() *Replica { return n.replica }

// WaitApplied blocks until the entry at index is applied here.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	return n.replica.WaitApplied(ctx, index)
}

// CommitIndex returns the last index that this node knows to be committed.
func (n *Node) CommitIndex() uint64 { return n.raft.CommitIndex() }

// Snapshot writes a snapshot to disk now; it is no error if there is nothing new.
func (n *Node) Snapshot() error {
	err := n.raft.Snapshot().Error()
	if errors.Is(err, hraft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// Stats is the health of a node's part in the log.
type Stats struct {
	State       string        `json:"state"` // Leader, Follower, Candidate, Shutdown
	Term        uint64        `json:"term"`
	Last        uint64        `json:"last"`      // last index in the log
	LastTerm    uint64        `json:"last_term"` // of that entry; 0 from nodes of older versions
	Commit      uint64        `json:"commit"`
	Applied     uint64        `json:"applied"`
	Snapshot    uint64        `json:"snapshot"`
	LastContact time.Duration `json:"last_contact_ns"` // since the leader was heard, 0 on the leader, -1 if never
	LastWrite   time.Duration `json:"last_write_ns"`   // how long the last durable write took
	WriteStuck  time.Duration `json:"write_stuck_ns"`  // how long the write in progress has been going on
	DiskError   string        `json:"disk_error,omitempty"`
	Pending     int           `json:"pending"`         // proposals waiting for their outcome
	Unfit       []string      `json:"unfit,omitempty"` // why this node should not lead
}

// Stats returns the health now.
func (n *Node) Stats() Stats {
	raw := n.raft.Stats()
	num := func(key string) uint64 { v, _ := strconv.ParseUint(raw[key], 10, 64); return v }
	s := Stats{
		State: raw["state"], Term: num("term"), Last: num("last_log_index"), LastTerm: num("last_log_term"), Commit: num("commit_index"),
		Applied: n.replica.Applied(), Snapshot: num("last_snapshot_index"),
		LastWrite: time.Duration(n.disk.watch.last.Load()), Pending: n.pending.len(), LastContact: -1, Unfit: n.fitness.list(),
	}
	if n.IsLeader() {
		s.LastContact = 0
	} else if at := n.raft.LastContact(); !at.IsZero() {
		s.LastContact = time.Since(at)
	}
	if since := n.disk.watch.since.Load(); since != 0 {
		s.WriteStuck = time.Since(time.Unix(0, since))
	}
	if e := n.disk.watch.trouble(); e != nil {
		s.DiskError = e.Error()
	}
	return s
}
