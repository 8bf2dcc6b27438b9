package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/state"
)

const (
	// lookEvery is how often the node examines itself: a disk fills at most by
	// a few seconds' writes in between, less than the reserve.
	lookEvery = time.Second
	// lookDeeply is how often it looks at what costs more and moves less.
	lookDeeply = 10 * time.Second
)

// watchdogs examine the node and keep what they find. Safe for concurrent use.
type watchdogs struct {
	look  func(s *doctor.Sample, deeply bool) // reads the machine and the node
	unfit func(reason string, bad bool)
	leads func() bool
	log   *slog.Logger

	// Of step alone:
	sample doctor.Sample
	deep   time.Time // last look at everything
	gaveUp bool      // the reserve file

	mu    sync.Mutex // not held while the machine is read: its disk may hang
	board *doctor.Board
	parts []doctor.Part // that do not work
	node  string        // name, as of the last look
	begun time.Time     // when the look under way began, zero between looks
}

// hangAfter is how long a look may take. Statistics of a disk that works take
// microseconds, under the worst load not seconds.
const hangAfter = 10 * time.Second

// Reasons why a node should not lead; see raft.Node.Unfit.
var unfitFor = map[doctor.Code]string{
	doctor.ClockOffset: "its clock is off",
	doctor.OpenFiles:   "it is short of file descriptors",
	doctor.OwnMemory:   "it is short of memory",
}

const unfitReserve = "its disk was full and it lives on its reserve"

func newWatchdogs(log *slog.Logger) *watchdogs {
	return &watchdogs{board: doctor.NewBoard(), log: log}
}

// Run examines the node until ctx ends.
func (w *watchdogs) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.step(time.Now())
		pause(ctx, lookEvery)
	}
	return nil
}

func (w *watchdogs) step(now time.Time) {
	w.begin(time.Now())
	defer w.begin(time.Time{})
	s := &w.sample
	if step := gossip.Step(s.Now, now); !s.Now.IsZero() && step.Abs() >= time.Second {
		s.Clock.Step, s.Clock.SteppedAt = step, now
	}
	s.Now = now
	deeply := now.Sub(w.deep) >= lookDeeply
	if deeply {
		w.deep = now
	}
	w.look(s, deeply)
	if doctor.KeepReserve(&s.Disk) {
		w.gaveUp = true
	}
	if s.Disk.Reserve > 0 {
		w.gaveUp = false
	}
	w.judge(s)
	w.unfit(unfitReserve, w.gaveUp)
}

// begin notes that a look begins; zero: that it is over.
func (w *watchdogs) begin(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = at
}

// judge puts what was seen on the board and tells what is new.
func (w *watchdogs) judge(s *doctor.Sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node, s.Parts = s.Node, slices.Clone(w.parts)
	for _, c := range w.board.Update(s.Now, doctor.Examine(s, w.board.Was)) {
		w.tell(c)
	}
	for code, reason := range unfitFor {
		w.unfit(reason, w.board.Was(code) == doctor.Error)
	}
}

// tell logs a change once. What concerns the cluster is the leader's to log,
// but for what stops it: then there is no leader.
func (w *watchdogs) tell(c doctor.Change) {
	if c.Node == "" && c.Code != doctor.MastersAway && !w.leads() {
		return
	}
	args := []any{"code", c.Code.String(), "what", c.What, "severity", c.Severity}
	if c.Subject != "" {
		args = append(args, "subject", c.Subject)
	}
	switch {
	case c.Over:
		w.log.Info("the doctor's finding is over", args...)
	default:
		w.log.Warn("the doctor found", append(args, "why", c.Why, "fix", c.Fix)...)
	}
}

// down notes a part of the node that does not work; why "" says that it does.
func (w *watchdogs) down(name, why, fix string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parts = slices.DeleteFunc(w.parts, func(p doctor.Part) bool { return p.Name == name })
	if why != "" {
		w.parts = append(w.parts, doctor.Part{Name: name, Why: why, Fix: fix})
	}
}

// findings are those of this node, and those of the cluster as it sees it. It
// does not wait for a look that hangs; then that is one of them.
func (w *watchdogs) findings() (own, shared []doctor.Finding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.begun); !w.begun.IsZero() && since >= hangAfter {
		own = append(own, doctor.Hanging(w.node, w.begun, since))
	}
	for _, f := range w.board.Open() {
		if f.Node == "" {
			shared = append(shared, f)
		} else {
			own = append(own, f)
		}
	}
	return own, shared
}

// alerts are the short form of the node's own findings, the worst first.
func (w *watchdogs) alerts() []gossip.Alert {
	own, _ := w.findings()
	var out []gossip.Alert
	for _, f := range own {
		a := gossip.Alert{Code: uint16(f.Code), Error: f.Severity == doctor.Error}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// openWatchdogs starts the examination and tells the others of it.
func (n *Node) openWatchdogs(context.Context) error {
	w := n.watchdogs
	w.unfit = n.leadership.Unfit
	w.leads = func() bool { return n.core.leader() == n.cfg.ID }
	w.look = func(s *doctor.Sample, deeply bool) { n.look(s, deeply) }
	n.openLinks(w.alerts)
	n.rpc.HandleFunc("GET "+pathDoctor, n.serveDoctor)
	n.part("watchdogs", w.Run)
	if n.voter != nil {
		n.voter.OnLeadership(n.recordErrors)
	}
	return nil
}

// look fills a sample.
func (n *Node) look(s *doctor.Sample, deeply bool) {
	s.Node, s.Master, s.Version = n.cfg.Name, n.voter != nil, n.version
	n.noteLeader(time.Now())
	if disk, err := doctor.ReadDisk(n.cfg.Data); err == nil {
		s.Disk = disk
	}
	if n.voter != nil {
		st := n.voter.Stats()
		s.Log = doctor.Log{Slow: max(st.LastWrite, st.WriteStuck), Failure: st.DiskError, Unfit: st.Unfit}
	}
	s.Clock.Ahead, s.Clock.Slack, s.Clock.Known = gossip.ClockError(n.links.current())
	n.lookAround(s)
	if !deeply {
		return
	}
	if files, err := doctor.ReadFiles(); err == nil {
		s.Files = files
	}
	s.Memory = doctor.ReadMemory()
	leaf := n.keys.Leaf().Leaf
	s.Certs = doctor.Certs{LeafFrom: leaf.NotBefore, LeafTo: leaf.NotAfter, CATo: n.keys.CA().NotAfter}
	if err := n.gossip.Conflict(); err != nil {
		s.Conflict = err.Error()
	} else {
		s.Conflict = ""
	}
	s.Damaged = slices.Clone(n.volumes.damage.damaged())
	if n.voter != nil {
		at, index := newestSnapshot(n.cfg.dir(snapshotDir))
		s.Damaged = append(s.Damaged, n.auditCheck.damaged()...)
		s.Snapshot = doctor.Snapshot{Wanted: index != n.store.Index(), At: at, Started: n.started, Every: snapshotEvery}
	}
}

// lookAround fills in what the node knows of the others.
func (n *Node) lookAround(s *doctor.Sample) {
	snap := n.store.Snapshot()
	names, voters := map[string]*model.Node{}, n.voters()
	s.Masters, s.Nodes, s.Leader, s.Links = nil, nil, "", nil
	for m := range state.Nodes.All(snap) {
		if m.Status == model.NodeLeft {
			continue
		}
		names[m.ID] = m
		seen := doctor.Member{Name: m.Name, Version: m.Version, Alive: n.answers(m.ID), Down: m.Status == model.NodeDown}
		if m.ID != n.cfg.ID && !m.StartedAt.IsZero() {
			_, seen.Since = n.gossip.Alive(m.ID)
		}
		s.Nodes = append(s.Nodes, seen)
		if slices.Contains(voters, m.ID) {
			s.Masters = append(s.Masters, seen) // the loss of a standby stops nothing
		}
	}
	if leader := names[n.leader()]; leader != nil {
		s.Leader = leader.Name
	}
	s.Stale = !n.core.fresh()
	if f, ok := n.core.(*follower); ok {
		s.Contact = f.heard()
	} else {
		s.Stale = false // a master's word for it is that no master leads
	}
	for _, f := range gossip.Faults(n.gossip.Rows(), n.gossip.RowAge(), s.Now) {
		from, to := names[f.From], names[f.To]
		// Who is heard and cannot be called is no dead node, whatever gossip thinks.
		there := f.Kind == gossip.FaultOneWay || n.alive(f.From) && n.alive(f.To)
		if from != nil && to != nil && there && !n.foreseen(f) {
			s.Links = append(s.Links, doctor.Link{From: from.Name, To: to.Name, What: faultText(f, from.Name, to.Name), Since: f.Since,
				Beats: f.Kind == gossip.FaultDatagrams, Masters: from.Role == model.RoleMaster && to.Role == model.RoleMaster})
		}
	}
}

// foreseen reports whether calls fail because a certificate of theirs ran out: the doctor says that of the
// node, and the network is as it was.
func (n *Node) foreseen(f gossip.Fault) bool {
	return (f.Kind == gossip.FaultPort || f.Kind == gossip.FaultUnclear) && (slices.ContainsFunc(n.told(f.From, ""), ranOut) || slices.ContainsFunc(n.told(f.To, ""), ranOut))
}

// newestSnapshot tells of when and of which index the newest saved state is.
func newestSnapshot(dir string) (at time.Time, index uint64) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"+snapshotExt)) // the pattern is right
	for _, f := range files {
		if t, i := parseSnapshotName(f); i >= index {
			at, index = t, i
		}
	}
	return at, index
}

// faultText is a broken link in words.
func faultText(f gossip.Fault, from, to string) string {
	switch f.Kind {
	case gossip.FaultOneWay:
		return "what " + from + " sends to " + to + " is lost; the other direction works"
	case gossip.FaultCut:
		return min(from, to) + " and " + max(from, to) + " do not reach each other"
	case gossip.FaultPort:
		return from + " cannot call " + to + " (" + f.State.String() + "), though datagrams pass"
	case gossip.FaultDatagrams:
		return "datagrams of " + from + " do not reach " + to + ", though calls do"
	}
	return from + " does not reach " + to + " (" + f.State.String() + ")"
}
