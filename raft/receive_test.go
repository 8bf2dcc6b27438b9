package raft

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

// follower is a master of three, and the test is its leader, of term 5.
type follower struct {
	t      *testing.T
	node   *Node
	sm     *tally
	leader *transport
	addr   hraft.ServerAddress
}

func newFollower(t *testing.T) *follower {
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	f := &follower{t: t, sm: &tally{}}
	ln, own := listen(), listen()
	f.addr = hraft.ServerAddress(ln.Addr().String())
	var err error
	f.node, err = Open(Config{ID: "f", Addr: string(f.addr), Dir: t.TempDir(), Replica: NewReplica(f.sm), Listener: ln, Dial: dial,
		Client: http.DefaultClient, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f.leader = newTransport(stream{Listener: own, addr: own.Addr().String(), dial: dial}, hclog.NewNullLogger())
	t.Cleanup(func() { f.leader.Close(); f.node.Close() })
	return f
}

func (f *follower) header() hraft.RPCHeader {
	return hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte("l"), Addr: []byte(f.leader.LocalAddr())}
}

// lines are entries from, to and between.
func lines(from, to, term uint64) (out []*hraft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &hraft.Log{Index: i, Term: term, Type: hraft.LogCommand, Data: newEnvelope(ProposalID{byte(i), byte(term)}, 0, 0, fmt.Append(nil, i, "/", term))})
	}
	return out
}

func (f *follower) append(prev, prevTerm, commit uint64, entries []*hraft.Log) bool {
	f.t.Helper()
	var resp hraft.AppendEntriesResponse
	if err := f.leader.AppendEntries("f", f.addr, &hraft.AppendEntriesRequest{RPCHeader: f.header(), Term: 5, PrevLogEntry: prev, PrevLogTerm: prevTerm,
		Entries: entries, LeaderCommitIndex: commit}, &resp); err != nil {
		f.t.Fatal(err)
	}
	return resp.Success
}

// install sends a snapshot of the first lines.
func (f *follower) install(last uint64) {
	f.t.Helper()
	r := NewReplica(&tally{})
	for _, l := range lines(1, last, 5) {
		r.Apply([]Entry{{l.Index, l.Term, l.Data}})
	}
	snap, err := r.Snapshot()
	if err != nil {
		f.t.Fatal(err)
	}
	var b bytes.Buffer
	snap.WriteTo(&b)
	conf := hraft.Configuration{Servers: []hraft.Server{{ID: "l", Address: f.leader.LocalAddr()}, {ID: "f", Address: f.addr}}}
	var resp hraft.InstallSnapshotResponse
	if err := f.leader.InstallSnapshot("f", f.addr, &hraft.InstallSnapshotRequest{RPCHeader: f.header(), SnapshotVersion: hraft.SnapshotVersionMax, Term: 5,
		LastLogIndex: last, LastLogTerm: 5, Size: int64(b.Len()), Configuration: hraft.EncodeConfiguration(conf), ConfigurationIndex: 1}, &resp, &b); err != nil || !resp.Success {
		f.t.Fatalf("install up to %d: %+v, %v", last, resp, err)
	}
}

// holds waits until this many lines are applied, and checks the end of the log.
func (f *follower) holds(applied, last uint64) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Second); f.node.replica.Applied() < applied && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // more would come soon
	stored, err := f.node.disk.log.LastIndex()
	if got := f.node.replica.Applied(); err != nil || got != applied || f.node.raft.AppliedIndex() != applied || stored != last {
		f.t.Fatalf("applied %d, raft says %d, the log ends at %d, want %d and %d: %v", got, f.node.raft.AppliedIndex(), stored, applied, last, err)
	}
}

// hashicorp/raft takes a snapshot that comes late and forgets what it has acknowledged since.
func TestLateSnapshotTakesNothingBack(t *testing.T) {
	f := newFollower(t)
	f.install(10)
	if !f.append(10, 5, 15, lines(11, 20, 5)) {
		t.Fatal("append refused")
	}
	f.holds(15, 20)
	for _, last := range []uint64{10, 15, 18} { // 18: acknowledged, and not yet known to be committed
		f.install(last)
		f.holds(15, 20)
	}
	f.append(20, 5, 20, nil)
	f.holds(20, 20)
	f.install(30) // and a newer one is needed
	f.holds(30, 0)
}

// A leader that goes back further than this master's log does goes on after it was told that its snapshot
// is not needed.
func TestAppendBeforeTheFirstEntryOfTheLogIsTaken(t *testing.T) {
	f := newFollower(t)
	f.install(10)
	if !f.append(10, 5, 12, lines(11, 15, 5)) {
		t.Fatal("append refused")
	}
	f.install(8)
	if !f.append(8, 5, 12, lines(9, 9, 5)) || !f.append(8, 5, 20, lines(9, 20, 5)) {
		t.Fatal("what is applied was refused")
	}
	f.holds(20, 20)
	if f.append(25, 5, 20, lines(26, 27, 5)) {
		t.Error("a gap was taken")
	}
}

// What an append has not compared is not committed by it.
func TestAppendCommitsNoMoreThanItCovers(t *testing.T) {
	f := newFollower(t)
	f.append(0, 0, 0, append(lines(1, 5, 1), lines(6, 10, 2)...)) // 6 to 10 are of a leader that was deposed
	f.append(0, 0, 8, lines(1, 5, 1))
	f.holds(5, 10)
	f.append(5, 1, 8, lines(6, 8, 5))
	f.holds(8, 8)
	if got := f.sm.Seen[5]; got != "6/5" {
		t.Errorf("line 6 is %q", got)
	}
}

// A stopping raft leaves proposals that it has taken and not looked at without an answer.
func TestProposalsAreAnsweredWhenRaftHasStopped(t *testing.T) {
	f := newFollower(t)
	if err := f.node.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	close(over)
	for range 32 { // each is refused or taken, by chance
		future := f.node.raft.Apply(nil, time.Second)
		endWith(future, over)
		if err := future.Error(); err != hraft.ErrRaftShutdown {
			t.Fatal(err)
		}
	}
}

// The guard of a node may look at the log while somebody else closes the node.
func TestTheEndOfAClosedLogIsNotLookedAt(t *testing.T) {
	f := newFollower(t)
	f.install(10)
	if err := f.node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.node.checkEnd(new(wrongEnd), time.Now()); err != nil {
		t.Error(err)
	}
}
