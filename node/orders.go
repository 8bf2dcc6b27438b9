package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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
	orderRefeed  = "refeed" // the same for an agent
	orderUndo    = "undo"   // of a resync
)

// order is a word from `appliance recover` to the node, durable until it is
// carried out.
type order struct {
	Kind       string     `json:"kind"`
	At         time.Time  `json:"at"`
	Generation generation `json:"generation,omitzero"` // to recover as
	Before     generation `json:"before,omitzero"`     // that of the log as it is
	Masters    []string   `json:"masters,omitempty"`   // to resync from
	SetAside   bool       `json:"setAside,omitempty"`  // the log is moved away
	Kept       string     `json:"kept,omitempty"`      // where what there was is
	Undoes     time.Time  `json:"undoes,omitzero"`     // At of the resync
}

// OrderDone is what became of an order.
type OrderDone struct {
	Kind string       `json:"kind"`
	At   time.Time    `json:"at"`             // of the order
	Kept string       `json:"kept,omitempty"` // copy of the log as it was
	Err  *model.Error `json:"error,omitempty"`
}

// readOrder returns the order that is to be carried out, nil if there is none. It has a second copy: a
// master whose log is set aside must not start without it as if it had never had one.
func readOrder(c Config) (*order, error) {
	path, second, aside := c.twice(orderFile)
	raw, err := durable.ReadTwice(path, second, aside, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	o := &order{}
	var body []byte
	if err == nil {
		body, err = durable.Unseal(raw)
	}
	if err == nil {
		err = json.Unmarshal(body, o)
	}
	if err != nil {
		return nil, model.Errorf(model.CodeInternal, "%s is damaged", path).Because("%v", err).
			Try("give the order again, which replaces it: appliance recover, with the flags of before")
	}
	if d := lastDone(c); d != nil && d.At.Equal(o.At) { // a crash came before it was dropped
		return nil, durable.RemoveTwice(path, second)
	}
	return o, nil
}

func (o *order) save(c Config) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	path, second, _ := c.twice(orderFile)
	return durable.WriteTwice(path, second, durable.Seal(body))
}

// done notes the outcome and drops the order.
func (o *order) done(c Config, err error) error {
	if err := o.note(c, err); err != nil {
		return err // it is carried out again
	}
	if o.replaced(c) {
		return errNewOrder
	}
	path, second, _ := c.twice(orderFile)
	return durable.RemoveTwice(path, second)
}

func (o *order) note(c Config, err error) error {
	d := OrderDone{Kind: o.Kind, At: o.At, Kept: o.Kept}
	if err != nil && !errors.As(err, &d.Err) {
		d.Err = model.Errorf(model.CodeInternal, "%v", err)
	}
	body, err := json.Marshal(d)
	if err == nil {
		err = durable.WriteSealed(c.dir(doneFile), body)
	}
	return err
}

// replaced reports whether there is a later order.
func (o *order) replaced(c Config) bool {
	var now order
	body, err := durable.ReadSealed(c.dir(orderFile))
	return err == nil && json.Unmarshal(body, &now) == nil && !now.At.Equal(o.At)
}

var errNewOrder = model.Errorf(model.CodeUnavailable, "this node starts again").Because("appliance recover has asked for something").Try("wait a moment")

// lastDone is what became of the last order, nil if there was none.
func lastDone(c Config) *OrderDone {
	d := &OrderDone{}
	body, err := durable.ReadSealed(c.dir(doneFile))
	if err != nil || json.Unmarshal(body, d) != nil {
		return nil
	}
	return d
}

// ordersEvery is how often a running node looks for an order.
const ordersEvery = time.Second

// awaitOrder ends the node when there is an order: it is carried out at the
// start, before the log is opened.
func (n *Node) awaitOrder(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := os.Stat(n.cfg.dir(orderFile)); err == nil {
			return errNewOrder
		}
		pause(ctx, ordersEvery)
	}
	return nil
}

// carryOutOrder does what an order wants. A failed recovery leaves everything as
// it was.
func (n *Node) carryOutOrder(ctx context.Context) error {
	n.part("orders", n.awaitOrder)
	o, err := readOrder(n.cfg)
	if o == nil || err != nil {
		return err
	}
	switch master := n.cfg.Role == model.RoleMaster; {
	case o.Kind == orderRefeed && !master:
		return n.refeed(o)
	case o.Kind == orderResync && master:
		return n.resync(ctx, o)
	case o.Kind == orderRecover && master:
		return n.recover(o)
	case o.Kind == orderUndo && master:
		return n.undo(o)
	}
	return model.Errorf(model.CodeInternal, "there is an unknown order %q in %s", o.Kind, n.cfg.dir(orderFile)).Try("run a newer version")
}

func (c Config) raft(replica *raft.Replica, log *slog.Logger) raft.Config {
	return raft.Config{ID: c.ID, Addr: c.wireAddr(), Dir: c.dir("raft"), Witness: c.dir(witnessDir), Aside: c.dir(damagedDir), Replica: replica, Log: log}
}

func scratch() *raft.Replica { return raft.NewReplica(command.NewMachine(state.New())) }

// recover makes this master the only one. The copy comes first, since it is what is most likely to fail,
// and the generation before the change: with it alone the node cannot reach its old peers, so a crash in
// between leaves it without a quorum, and the order is carried out again.
func (n *Node) recover(o *order) error {
	rc := n.cfg.raft(scratch(), n.log)
	before := o.Before
	if before.Number == 0 { // the order is of an older version
		before = n.generation
	}
	begun := n.generation.Number != before.Number // by an attempt that was cut short, of this order or one that it replaces
	if _, err := raft.Inspect(rc); err != nil {
		if begun {
			return damaged(err)
		}
		return o.done(n.cfg, damaged(err))
	}
	o.Kept = ""
	place := o.place(n.cfg, "raft-before-recover")
	if err := raft.KeepCopy(rc, place); err != nil {
		if begun {
			return unfinished(err)
		}
		return o.done(n.cfg, unchanged(err))
	}
	o.Kept = place
	err := o.Generation.save(n.cfg)
	changed := false
	if err == nil {
		changed, err = raft.Recover(n.cfg.raft(scratch(), n.log))
	}
	switch {
	case err != nil && (changed || begun):
		return unfinished(err)
	case err != nil:
		if undone := before.save(n.cfg); undone != nil {
			return errors.Join(err, undone) // the same: no peer is reached meanwhile
		}
		return o.done(n.cfg, unchanged(err))
	}
	n.generation = o.Generation
	n.log.Warn("this master goes on alone; what only the lost masters had is lost", "index", o.Generation.Last,
		"generation", o.Generation.Number, "copy", o.Kept)
	return o.done(n.cfg, nil)
}

// place is where an order keeps what there was. It is the same however often the order is carried out.
func (o *order) place(c Config, what string) string {
	return filepath.Join(c.dir(damagedDir), o.At.UTC().Format("20060102T150405.000Z")+"-"+what)
}

func unchanged(err error) error {
	return model.Errorf(model.CodeUnavailable, "the recovery was not begun").Because("%v", err).
		Try("nothing was changed: make room on the disk, or repair it, and run appliance recover again")
}

// unfinished ends the node, which goes on with the recovery at its next start: there is no way back.
func unfinished(err error) error {
	return model.Errorf(model.CodeUnavailable, "the recovery is not finished").Because("%v", err).
		Try("make room on the disk, or repair it, and start this node again: it goes on with it")
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
	return keys.Swap(chain, req.Key, time.Now(), nil)
}
