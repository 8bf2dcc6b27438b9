package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/state"
)

// pathRecover is where every node tells what it knows of the log, for
// `appliance recover`.
const pathRecover = "/rpc/recover"

const (
	recoverAsk = 2 * time.Second // for all nodes at once
	maxRecover = 1 << 20         // bytes of an answer
)

// sight is what a node knows of the log.
type sight struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Addr       string          `json:"addr"`
	Role       model.Role      `json:"role"`
	Generation wire.Generation `json:"generation"`
	Leader     string          `json:"leader,omitempty"`  // id; masters only
	Follows    string          `json:"follows,omitempty"` // address of the master that an agent hears from
	Position   raft.Position   `json:"position"`          // masters only
	Applied    uint64          `json:"applied"`           // and therefore committed
	Nodes      []seenNode      `json:"nodes,omitempty"`
}

type seenNode struct {
	ID   string     `json:"id"`
	Name string     `json:"name"`
	Addr string     `json:"addr"` // host:port
	Role model.Role `json:"role"`
}

// openRecover serves this node's sight.
func (n *Node) openRecover() {
	n.rpc.HandleFunc("GET "+pathRecover, func(w http.ResponseWriter, r *http.Request) {
		s := sight{ID: n.cfg.ID, Name: n.cfg.Name, Addr: n.cfg.wireAddr(), Role: n.cfg.Role, Generation: n.stateGeneration(),
			Applied: n.replica.Applied(), Nodes: peers(n.store)}
		if f, ok := n.core.(*follower); ok && f.fresh() {
			s.Follows = f.feed.Status().Master
		}
		if n.voter != nil {
			s.Generation, s.Leader = n.generation.Generation, n.voter.leader()
			var err error
			if s.Position, err = n.voter.Position(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the caller is gone if this fails
	})
}

func peers(store *state.Store) (out []seenNode) {
	for n := range state.Nodes.All(store.Snapshot()) {
		if n.Status != model.NodeLeft {
			out = append(out, seenNode{n.ID, n.Name, withPort(n.Addr), n.Role})
		}
	}
	return out
}

// RecoveryMaster is a master in a RecoveryPlan.
type RecoveryMaster struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Addr    string `json:"addr"`
	Answers bool   `json:"answers"`
	Last    uint64 `json:"last,omitempty"`
	Term    uint64 `json:"term,omitempty"` // of the last entry
	Why     string `json:"why,omitempty"`  // it does not answer
}

// RecoveryPlan says what a recovery on this master would keep and lose.
type RecoveryPlan struct {
	Node       string           `json:"node"`
	Running    bool             `json:"running"`
	Generation uint64           `json:"generation"` // afterwards
	Last       uint64           `json:"last"`       // index of the last entry here
	Term       uint64           `json:"term"`       // of that entry
	Commit     uint64           `json:"commit"`     // what this node knows to be committed
	Seen       uint64           `json:"seen"`       // the highest index that any node has applied
	SeenBy     string           `json:"seenBy,omitempty"`
	Masters    []RecoveryMaster `json:"masters"`
	Leader     string           `json:"leader,omitempty"`
	// Refused says why it must not be done here, or need not be done.
	Refused *model.Error `json:"refused,omitempty"`

	config     Config
	generation generation
	addrs      []string // of other masters
}

// PlanRecovery looks at this master's log, running or not, and asks all nodes
// that it knows of. Nothing is changed.
func PlanRecovery(ctx context.Context, data, run string) (*RecoveryPlan, error) {
	c, err := loadMaster(data, run)
	if err != nil {
		return nil, err
	}
	if o, _ := readOrder(c); o != nil && o.Kind == orderResync {
		return nil, model.Errorf(model.CodeConflict, "this master waits until the others take it in again").
			Because("recover --resync was asked for, and it goes on by itself").Try("to go on with the log that it had: appliance recover --undo")
	}
	client, err := c.knock()
	if err != nil {
		return nil, err
	}
	self, running, err := c.look(ctx, client)
	if err != nil {
		return nil, err
	}
	p := &RecoveryPlan{Node: c.Name, Running: running, Last: self.Position.Last, Term: self.Position.LastTerm,
		Commit: max(self.Position.Commit, self.Applied), Leader: self.Leader, config: c}
	if !running {
		p.Commit = self.Position.Commit
	}
	p.Seen, p.SeenBy = p.Commit, c.Name
	all := p.survey(ctx, client, self)
	p.judge(self, all)
	return p, p.sign(all)
}

func loadMaster(data, run string) (Config, error) {
	c, err := Load(data, run)
	if err == nil && c.Role != model.RoleMaster {
		err = model.Errorf(model.CodeInvalid, "this node is an agent").Because("only masters have the log").Try("run it on a master")
	}
	return c, err
}

// knock returns a client that shows this node's certificate.
func (c Config) knock() (*http.Client, error) {
	keys, err := c.pki().Keychain(time.Now())
	if err != nil {
		return nil, err
	}
	if keys.Expired(time.Now()) {
		if err := freshLeaf(c, keys); err != nil {
			return nil, err
		}
	}
	return wire.NewDialer(keys).Client(), nil
}

// look returns the sight of this node itself.
func (c Config) look(ctx context.Context, client *http.Client) (sight, bool, error) {
	lock, err := lockData(c.Data)
	if err != nil {
		s, err := ask(ctx, client, c.wireAddr())
		if err != nil {
			err = model.Errorf(model.CodeUnavailable, "the node on this machine runs and does not answer").Because("%v", err).
				Try("look at its log, or stop it and run this again: systemctl stop appliance")
		}
		return s, true, err
	}
	defer lock.Close()
	store := state.New()
	replica := raft.NewReplica(command.NewMachine(store))
	at, err := raft.Inspect(c.raft(replica, slog.New(slog.DiscardHandler)))
	if err != nil {
		return sight{}, false, damaged(err)
	}
	g, err := readGeneration(c)
	return sight{ID: c.ID, Name: c.Name, Addr: c.wireAddr(), Role: c.Role, Generation: g.Generation, Position: at, Nodes: peers(store)}, false, err
}

func ask(ctx context.Context, client *http.Client, addr string) (s sight, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoverAsk)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+pathRecover, nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, errors.New(resp.Status)
	}
	return s, json.NewDecoder(io.LimitReader(resp.Body, maxRecover)).Decode(&s)
}

// survey asks all nodes that are known, and lists the masters of the log.
func (p *RecoveryPlan) survey(ctx context.Context, client *http.Client, self sight) []sight {
	targets := slices.DeleteFunc(slices.Clone(self.Nodes), func(n seenNode) bool { return n.ID == self.ID })
	for _, s := range self.Position.Servers {
		if s.ID != self.ID && !slices.ContainsFunc(targets, func(n seenNode) bool { return n.ID == s.ID }) {
			targets = append(targets, seenNode{ID: s.ID, Name: s.ID, Addr: s.Addr, Role: model.RoleMaster})
		}
	}
	answers, errs := make([]sight, len(targets)), make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			if answers[i], errs[i] = ask(ctx, client, t.Addr); errs[i] == nil && answers[i].ID != t.ID {
				errs[i] = errors.New("another node has its address: " + answers[i].Name)
			}
		})
	}
	wg.Wait()
	p.Masters = []RecoveryMaster{{Name: self.Name, ID: self.ID, Addr: self.Addr, Answers: true, Last: p.Last, Term: p.Term}}
	all := []sight{self}
	for i, t := range targets {
		m := RecoveryMaster{Name: t.Name, ID: t.ID, Addr: t.Addr}
		if errs[i] == nil {
			all = append(all, answers[i])
			m.Answers, m.Last, m.Term = true, answers[i].Position.Last, answers[i].Position.LastTerm
			if answers[i].Applied > p.Seen {
				p.Seen, p.SeenBy = answers[i].Applied, t.Name
			}
		} else {
			m.Why = short(errs[i])
		}
		if isVoter(self.Position.Servers, t.ID) {
			p.Masters = append(p.Masters, m)
			p.addrs = append(p.addrs, t.Addr)
		}
	}
	return all
}

// short is the cause without what leads to it.
func short(err error) string {
	for next := err; next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

func isVoter(servers []raft.Server, id string) bool {
	return slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == id && s.Voter })
}

// judge refuses what would do harm.
func (p *RecoveryPlan) judge(self sight, all []sight) {
	answering, voters := 0, len(p.Masters)
	silent := map[string]string{} // address -> name
	for _, m := range p.Masters {
		if m.Answers {
			answering++
		} else {
			silent[m.Addr] = m.Name
		}
	}
	for _, s := range all {
		switch {
		case s.Generation.Number > self.Generation.Number:
			p.Refused = model.Errorf(model.CodeConflict, "the cluster was recovered without this master").
				Because("%s is of generation %d, this one of %d", s.Name, s.Generation.Number, self.Generation.Number).Try("appliance recover --resync")
			return
		case s.Leader != "":
			p.Refused = model.Errorf(model.CodeConflict, "the cluster has a leader: nothing is lost").Because("%s follows it or is it", s.Name).
				Try("to replace masters that are gone, join new ones")
			return
		case silent[s.Follows] != "":
			p.Refused = model.Errorf(model.CodeConflict, "%s is alive", silent[s.Follows]).
				Because("%s hears from it, and this master does not", s.Name).Try("repair the network between them: appliance net shows it")
			return
		}
	}
	if answering > voters/2 {
		p.Refused = model.Errorf(model.CodeConflict, "%d of %d masters answer, which is a majority: they will elect a leader", answering, voters).
			Try("wait some seconds and look at appliance status; if there is none, see the log of each master")
		return
	}
	for _, m := range p.Masters[1:] {
		if other := (raft.Position{Last: m.Last, LastTerm: m.Term}); m.Answers && self.Position.Less(other) {
			p.Refused = model.Errorf(model.CodeConflict, "%s has more of the log than this master", m.Name).
				Because("it ends at index %d of term %d there, at %d of term %d here", m.Last, m.Term, p.Last, p.Term).Try("run appliance recover on %s", m.Name)
			return
		}
	}
	if p.Last == 0 {
		p.Refused = model.Errorf(model.CodeConflict, "this master has no log").Try("run appliance recover on another one")
	}
}

// sign makes the generation that comes after all that were heard of.
func (p *RecoveryPlan) sign(all []sight) error {
	for _, s := range all {
		p.Generation = max(p.Generation, s.Generation.Number)
	}
	p.Generation++
	keys, err := p.config.pki().Keychain(time.Now())
	if err != nil {
		return err
	}
	ca, err := (&authority{dir: p.config.pki(), keys: keys, trust: func() *model.Trust { return nil }}).issuer()
	if err != nil {
		return err
	}
	proof, err := ca.Sign(statement(keys.Identity().Cluster, p.Generation))
	p.generation = generation{Generation: wire.Generation{Number: p.Generation, Proof: proof}, Node: p.Node, Last: p.Last}
	return err
}

// Order has the node carry out the plan at its next start, which a running
// node begins at once.
func (p *RecoveryPlan) Order() (time.Time, error) {
	if p.Refused != nil {
		return time.Time{}, p.Refused
	}
	now := time.Now().UTC()
	p.generation.At = now
	before, err := readGeneration(p.config)
	if err != nil {
		return now, err
	}
	if old, _ := readOrder(p.config); old != nil && old.Kind == orderRecover && old.Before.Number != 0 {
		before = old.Before // that order may have been begun
	}
	o := order{Kind: orderRecover, At: now, Generation: p.generation, Before: before}
	return now, o.save(p.config)
}

// Ordered returns what became of the order of that time, nil as long as it is
// not carried out.
func Ordered(data string, at time.Time) (*OrderDone, error) {
	d := lastDone(Config{Data: data})
	if d == nil || !d.At.Equal(at) {
		return nil, nil
	}
	if d.Err != nil {
		return d, d.Err
	}
	return d, nil
}
