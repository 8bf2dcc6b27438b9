package node

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/raft"
	"appliance/raft/durable"
)

// RiskLoseQuorum is what a resync has to be told that it accepts if the others cannot take this master in.
const RiskLoseQuorum = "lose-quorum"

// lookTime bounds the look whether the other masters lead: an election may be under way.
const lookTime = 6 * time.Second

// OrderResync has this node drop what it has of the log, keep it aside, and take everything anew from the
// others, at its next start, which a running node begins at once. It is refused if the others could not
// take it in now; with accept it waits for that. from adds addresses of masters to those that are known.
func OrderResync(ctx context.Context, data, run string, from []string, accept bool) (time.Time, error) {
	c, err := Load(data, run)
	if err != nil {
		return time.Time{}, err
	}
	addrs := c.otherMasters(from)
	if len(addrs) == 0 {
		return time.Time{}, model.Errorf(model.CodeInvalid, "no other master is known").Because("the log that names them cannot be read").
			Try("name one: appliance recover --resync --from ADDRESS; %s", aloneFix(data))
	}
	if !accept {
		if err := c.awaitTakers(ctx, addrs); err != nil {
			return time.Time{}, err
		}
	}
	o := &order{Kind: orderResync, At: time.Now().UTC(), Masters: addrs}
	if c.Role != model.RoleMaster {
		o.Kind = orderRefeed
	} else if old, _ := readOrder(c); old != nil && old.Kind != orderRecover { // it may have no log already; what is damaged is replaced
		o.Kept, o.Before = old.Kept, old.Before
		o.SetAside = old.SetAside && old.Kind == orderResync // an undo may have put the log back
	}
	return o.At, o.save(c)
}

func (c Config) otherMasters(from []string) []string {
	addrs := firstMasters(c)
	for _, a := range from {
		addrs = append(addrs, withPort(a))
	}
	if c.Role == model.RoleMaster {
		for _, s := range raft.Peers(c.raft(nil, slog.New(slog.DiscardHandler))) {
			addrs = append(addrs, s.Addr)
		}
	}
	addrs = slices.DeleteFunc(addrs, func(a string) bool { return a == c.wireAddr() })
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// aloneFix is what is left when no master has an intact log.
func aloneFix(data string) string {
	return "if no master with an intact log is left, make a new cluster with appliance init on another machine and give it the newest file of " +
		filepath.Join(data, snapshotDir) + " there: appliance snapshot restore FILE --accept-risk=other-cluster"
}

// awaitTakers asks the masters at addrs, and those that they name, until they can take this node in.
func (c Config) awaitTakers(ctx context.Context, addrs []string) error {
	client, err := c.knock()
	if err != nil {
		return err
	}
	for ends := time.Now().Add(lookTime); ; pause(ctx, time.Second) {
		all := survey(ctx, client, addrs)
		for _, s := range all {
			for _, m := range s.Position.Servers {
				if m.ID != c.ID && !slices.Contains(addrs, m.Addr) {
					addrs = append(addrs, m.Addr)
				}
			}
		}
		refused := takers(c, all)
		if refused == nil {
			return nil
		}
		if time.Now().After(ends) || ctx.Err() != nil {
			return refused
		}
	}
}

// survey asks all addresses at once, and returns who answers.
func survey(ctx context.Context, client *http.Client, addrs []string) []sight {
	answers, errs := make([]sight, len(addrs)), make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { answers[i], errs[i] = ask(ctx, client, addr) })
	}
	wg.Wait()
	var out []sight
	for i := range answers {
		if errs[i] == nil {
			out = append(out, answers[i])
		}
	}
	return out
}

// takers says why the masters that answer could not take this one in: they need a leader and a majority
// without it.
func takers(c Config, all []sight) error {
	all = slices.DeleteFunc(slices.Clone(all), func(s sight) bool { return s.ID == c.ID || s.Role != model.RoleMaster })
	refused := func(what, why, fix string) error {
		return model.Errorf(model.CodeConflict, "nothing was changed: %s", what).Because("%s", why).Try("%s", fix)
	}
	if len(all) == 0 {
		return refused("no other master answers", "without its log this one would wait for them, and the cluster with it",
			"start the others first; if they are lost for ever and the log here is intact: appliance recover; "+aloneFix(c.Data))
	}
	best := slices.MaxFunc(all, func(a, b sight) int {
		return cmp.Or(cmp.Compare(a.Generation.Number, b.Generation.Number), cmp.Compare(a.Position.LastTerm, b.Position.LastTerm), cmp.Compare(a.Position.Last, b.Position.Last))
	})
	if c.Role != model.RoleMaster { // an agent has no vote that they could lack
		if best.Leader == "" {
			return refused("the masters have no leader", "this agent could not take the state anew", "try again when appliance status shows one")
		}
		return nil
	}
	voters, here, leads := 0, 0, false
	for _, m := range best.Position.Servers {
		if !m.Voter {
			continue
		}
		voters++
		i := slices.IndexFunc(all, func(s sight) bool { return s.ID == m.ID && s.Generation.Number == best.Generation.Number })
		if i >= 0 {
			here++
			leads = leads || all[i].Leader != ""
		}
	}
	switch {
	case here <= voters/2:
		return model.Errorf(model.CodeConflict, "nothing was changed: the other masters have no majority without this one").
			Because("%d of %d answer, and one without its log does not count", here, voters).
			Try("start another one first; if the silent ones are lost for ever: appliance recover on %s, and then this again", best.Name)
	case !leads:
		return refused("the other masters have no leader", "only a leader can take this one in", "try again in some seconds; appliance status there shows who leads")
	}
	return nil
}

// OrderUndo has this master go on with the log that it had before a resync that is not done yet.
func OrderUndo(data, run string) (time.Time, error) {
	c, err := loadMaster(data, run)
	if err != nil {
		return time.Time{}, err
	}
	old, err := readOrder(c)
	if err != nil {
		return time.Time{}, err
	}
	if old == nil || old.Kind != orderResync && old.Kind != orderUndo {
		return time.Time{}, errTaken
	}
	o := *old
	o.Kind, o.At = orderUndo, time.Now().UTC()
	if old.Kind == orderResync {
		o.Undoes = old.At
	}
	if !o.SetAside && o.Kept == "" { // not begun, or a crash came in between
		o.Kept = old.place(c, asideName)
	}
	return o.At, o.save(c)
}

var errTaken = model.Errorf(model.CodeConflict, "there is no resync to undo").
	Because("this master does not wait to be taken in again; once it was, the log that it had before counts no longer").Try("appliance status shows what it does")

// asideName ends the name of the directory that a resync keeps the log in.
const asideName = "raft-before-resync"

const (
	// readmitWait bounds one attempt to be readmitted.
	readmitWait  = 20 * time.Second
	readmitPause = 2 * time.Second
)

// resync makes a master that has no log any more a member again. Until the
// leader has taken it out of the log it neither votes nor takes entries: it
// has forgotten what it promised. It waits for that as long as it takes.
func (n *Node) resync(ctx context.Context, o *order) error {
	if !o.SetAside {
		if err := n.setAside(o); err != nil {
			return err
		}
	}
	n.log.Warn("this master has no log: it waits until the others take it in again, without a vote", "kept", o.Kept, "masters", o.Masters)
	term, err := n.readmit(ctx, o)
	if err != nil {
		return err
	}
	if later, _ := n.fence.Heard(); later.Number > n.generation.Number {
		n.generation = generation{Generation: later, At: time.Now().UTC()}
		if err := n.generation.save(n.cfg); err != nil {
			return err
		}
	}
	if err := raft.Renew(n.cfg.raft(nil, n.log), term); err != nil {
		return err
	}
	if err := o.done(n.cfg, nil); err != nil {
		return err
	}
	n.log.Info("this master is taken in again", "term", term, "generation", n.generation.Number)
	return nil
}

func (n *Node) setAside(o *order) error {
	if g, err := readGeneration(n.cfg); err == nil && o.Before.Number == 0 {
		o.Before = g
	}
	place := cmp.Or(o.Kept, o.place(n.cfg, asideName)) // an undo that was cut short may have left a part there
	kept, err := raft.SetAside(n.cfg.raft(nil, n.log), place)
	if err != nil {
		return err
	}
	if kept {
		o.Kept = place
	}
	o.SetAside = true
	return o.save(n.cfg)
}

func (n *Node) readmit(ctx context.Context, o *order) (term uint64, err error) {
	if n.keys.Expired(time.Now()) {
		if err := freshLeaf(n.cfg, n.keys); err != nil {
			return 0, err
		}
	}
	remote := raft.NewRemote(n.replica, n.dialer.Client(), func() []string { return o.Masters })
	defer remote.Close()
	var last string
	for ctx.Err() == nil {
		if o.replaced(n.cfg) {
			return 0, errNewOrder
		}
		try, cancel := context.WithTimeout(ctx, readmitWait)
		term, err = remote.Readmit(try, n.cfg.ID, n.cfg.wireAddr())
		cancel()
		if err == nil {
			return term, nil
		}
		if err.Error() != last {
			n.log.Warn("not taken in yet: the other masters must have a majority of their own", "err", err)
		}
		last = err.Error()
		pause(ctx, readmitPause)
	}
	return 0, ctx.Err()
}

// undo puts the log back that a resync has set aside. The master never ran without it, so it still knows
// all that it has promised, whether the others have taken it in meanwhile or not.
func (n *Node) undo(o *order) error {
	if d := lastDone(n.cfg); d != nil && d.Kind == orderResync && d.At.Equal(o.Undoes) && d.Err == nil {
		return o.done(n.cfg, errTaken)
	}
	kept := o.Kept
	o.Kept = ""
	err := raft.PutBack(n.cfg.raft(nil, n.log), kept, o.place(n.cfg, "raft-before-undo"))
	if errors.Is(err, fs.ErrNotExist) {
		// The resync stays: a master without a log must not start as if it had never had one.
		if o.replaced(n.cfg) {
			return errNewOrder
		}
		back := &order{Kind: orderResync, At: o.Undoes, Masters: o.Masters, SetAside: true}
		if err := back.save(n.cfg); err != nil {
			return err
		}
		return cmp.Or(o.note(n.cfg, model.Errorf(model.CodeConflict, "no log was kept that could be put back").Because("%v", err).
			Try("this master goes on waiting until the others take it in")), error(errNewOrder))
	}
	if err != nil {
		return err
	}
	if o.Before.Number != 0 && o.Before.Number != n.generation.Number {
		n.generation = o.Before
		if err := n.generation.save(n.cfg); err != nil {
			return err
		}
	}
	n.log.Warn("this master has its log again", "from", kept)
	return o.done(n.cfg, nil)
}

// refeed has an agent drop its state, which it then takes anew.
func (n *Node) refeed(o *order) error {
	place := o.place(n.cfg, feedDir)
	err := os.MkdirAll(filepath.Dir(place), 0o700)
	if err == nil {
		err = os.Rename(n.cfg.dir(feedDir), place)
	}
	switch {
	case err == nil:
		o.Kept = place
		err = errors.Join(durable.SyncDir(filepath.Dir(place)), durable.SyncDir(n.cfg.Data))
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	n.log.Info("this agent takes the state anew from the masters", "kept", o.Kept)
	return o.done(n.cfg, nil)
}
