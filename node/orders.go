package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft"
	"appliance/raft/command"
	"appliance/raft/durable"
	"appliance/raft/state"
)

// orderFile is what an operator wants done to the log at the next start.
// Running nodes restart for it.
const orderFile = "order.json"

// doneFile is what became of the last order.
const doneFile = "order-done.json"

// Kinds of orders.
const (
	orderRecover = "recover"
	orderResync  = "resync"
)

// order is a word from `appliance recover` to the node, durable until it is
// carried out.
type order struct {
	Kind       string     `json:"kind"`
	At         time.Time  `json:"at"`
	Generation generation `json:"generation,omitzero"` // to recover as
	Masters    []string   `json:"masters,omitempty"`   // to resync from
	SetAside   bool       `json:"setAside,omitempty"`  // the log is moved away
	Kept       string     `json:"kept,omitempty"`      // where what there was is
}

// OrderDone is what became of an order.
type OrderDone struct {
	Kind string       `json:"kind"`
	At   time.Time    `json:"at"`             // of the order
	Kept string       `json:"kept,omitempty"` // copy of the log as it was
	Err  *model.Error `json:"error,omitempty"`
}

func readOrder(c Config) (*order, error) {
	body, err := durable.ReadSealed(c.dir(orderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	o := &order{}
	if err == nil {
		err = json.Unmarshal(body, o)
	}
	return o, err
}

func (o *order) save(c Config) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return durable.WriteSealed(c.dir(orderFile), body)
}

// done notes the outcome and drops the order.
func (o *order) done(c Config, err error) error {
	d := OrderDone{Kind: o.Kind, At: o.At, Kept: o.Kept}
	if err != nil && !errors.As(err, &d.Err) {
		d.Err = model.Errorf(model.CodeInternal, "%v", err)
	}
	body, err := json.Marshal(d)
	if err == nil {
		err = durable.WriteSealed(c.dir(doneFile), body)
	}
	return errors.Join(err, removeFile(c.dir(orderFile)), durable.SyncDir(c.Data))
}

// ordersEvery is how often a running node looks for an order.
const ordersEvery = time.Second

// awaitOrder ends the node when there is an order: it is carried out at the
// start, before the log is opened.
func (n *Node) awaitOrder(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := os.Stat(n.cfg.dir(orderFile)); err == nil {
			return model.Errorf(model.CodeUnavailable, "this node starts again").Because("appliance recover has asked for something").Try("wait a moment")
		}
		pause(ctx, ordersEvery)
	}
	return nil
}

// carryOutOrder does what an order wants. A failed recovery leaves everything as
// it was.
func (n *Node) carryOutOrder(ctx context.Context) error {
	n.part("orders", n.awaitOrder)
	if n.cfg.Role != model.RoleMaster {
		return nil
	}
	o, err := readOrder(n.cfg)
	if err != nil {
		return model.Errorf(model.CodeInternal, "%s is damaged", n.cfg.dir(orderFile)).Because("%v", err).
			Try("remove it and run appliance recover again")
	}
	if o == nil {
		return nil
	}
	switch o.Kind {
	case orderRecover:
		return n.recover(o)
	case orderResync:
		return n.resync(ctx, o)
	}
	return model.Errorf(model.CodeInternal, "there is an unknown order %q in %s", o.Kind, n.cfg.dir(orderFile)).Try("run a newer version")
}

func (c Config) raft(replica *raft.Replica, log *slog.Logger) raft.Config {
	return raft.Config{ID: c.ID, Addr: c.wireAddr(), Dir: c.dir("raft"), Witness: c.dir(witnessDir), Aside: c.dir(damagedDir), Replica: replica, Log: log}
}

func scratch() *raft.Replica { return raft.NewReplica(command.NewMachine(state.New())) }

// recover makes this master the only one. The generation comes first: with
// it alone the node cannot reach its old peers, so a crash in between leaves
// it without a quorum, and the order is carried out again.
func (n *Node) recover(o *order) error {
	if _, err := raft.Inspect(n.cfg.raft(scratch(), n.log)); err != nil {
		return o.done(n.cfg, damaged(err))
	}
	if err := o.Generation.save(n.cfg); err != nil {
		return err
	}
	kept, err := raft.Recover(n.cfg.raft(scratch(), n.log))
	if err != nil {
		return damaged(err)
	}
	n.generation, o.Kept = o.Generation, kept
	n.log.Warn("this master goes on alone; what only the lost masters had is lost", "index", o.Generation.Last,
		"generation", o.Generation.Number, "copy", kept)
	return o.done(n.cfg, nil)
}

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
		kept, err := raft.SetAside(n.cfg.raft(nil, n.log))
		if err != nil {
			return err
		}
		if kept != "" {
			o.Kept = kept
		}
		o.SetAside = true
		if err := o.save(n.cfg); err != nil {
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
	n.log.Info("this master is taken in again", "term", term, "generation", n.generation.Number)
	return o.done(n.cfg, nil)
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

// freshLeaf gives a master that was off for long a certificate to knock with.
func freshLeaf(c Config, keys *pki.Keychain) error {
	a := &authority{dir: c.pki(), keys: keys, trust: func() *model.Trust { return nil }}
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		return err
	}
	chain, err := a.sign(req.CSR, c.ID, c.Name, c.Role, c.Advertise)
	if err != nil {
		return err
	}
	return keys.Swap(chain, req.Key, time.Now())
}
