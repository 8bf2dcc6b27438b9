package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxKeys bounds the keys that wait to be read back; from half of it on that is done before the scenario ends.
	maxKeys = 20_000
	// batchKeys is how many keys one request removes: each such request is one entry of the log.
	batchKeys = 500
)

// durable writes through all nodes, each time to a key that nobody has written before. No later write
// covers a lost one: every key stays until it was read back, and is removed then.
type durable struct {
	nodes []*node
	wrong *verdicts

	mu      sync.Mutex
	lot     *lot // that is written now
	keys    int  // of all lots that are not checked
	checked int  // acknowledged writes that were looked for
	missed  int  // acknowledged writes that were not looked for yet

	checking sync.Mutex // what follows is of one check at a time
	closed   []*lot     // not checked yet
	remove   []string   // prefixes of checked keys
}

// lot is a set of keys that are checked together.
type lot struct {
	id     int
	acked  []bool // of each key
	active int    // writes under way
}

func newDurable(nodes []*node, wrong *verdicts) *durable {
	return &durable{nodes: nodes, wrong: wrong, lot: &lot{}}
}

const durablePrefix = "chaos/durable/"

func (l *lot) prefix() string { return fmt.Sprintf("%s%d/", durablePrefix, l.id) }

func (l *lot) batch(b int) string { return fmt.Sprintf("%s%d/", l.prefix(), b) }

func (l *lot) key(n int) string { return l.batch(n/batchKeys) + strconv.Itoa(n) }

// value is another one for each key.
func (l *lot) value(n int) string { return fmt.Sprintf("%d of %d", n, l.id) }

// write makes one write. It skips if too many wait to be read back.
func (d *durable) write(ctx context.Context) error {
	d.mu.Lock()
	if d.keys >= maxKeys {
		d.mu.Unlock()
		return errSkip
	}
	l, n := d.lot, len(d.lot.acked)
	l.acked = append(l.acked, false)
	l.active++
	d.keys++
	d.mu.Unlock()
	text, _, err := d.any().do(ctx, http.MethodPut, "/v1/kv/"+l.key(n), l.value(n))
	if err == nil && strings.TrimSpace(string(text)) != "true" {
		err = fmt.Errorf("the write was answered by %.100s", text)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.active--
	if err == nil {
		l.acked[n] = true
		d.missed++
	}
	return err
}

func (d *durable) any() *node { return d.nodes[rand.IntN(len(d.nodes))] }

// run reads back before the end of a scenario that is long.
func (d *durable) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, time.Second)
		d.mu.Lock()
		many := d.keys > maxKeys/2
		d.mu.Unlock()
		if many {
			try, cancel := context.WithTimeout(ctx, pageTime)
			_ = d.check(try, d.any()) // a fault may be in force: the next second, or the end of the scenario
			cancel()
		}
	}
}

// pair is a key as the Consul API shows it.
type pair struct {
	Key         string
	Value       []byte
	ModifyIndex uint64
}

// check reads everything that was written until now back through one node,
// and removes it. After an error the rest waits for the next check.
func (d *durable) check(ctx context.Context, n *node) error {
	d.checking.Lock()
	defer d.checking.Unlock()
	d.mu.Lock()
	if len(d.lot.acked) > 0 {
		d.closed = append(d.closed, d.lot)
		d.lot = &lot{id: d.lot.id + 1}
	}
	d.mu.Unlock()
	for len(d.closed) > 0 {
		l := d.closed[0]
		if err := d.quiet(ctx, l); err != nil {
			return err
		}
		list, err := pairs(ctx, n, l.prefix())
		if err != nil {
			return err // that it is not there now is no loss
		}
		d.judge(n, l, list)
		d.closed = d.closed[1:]
		for b := 0; b*batchKeys < len(l.acked); b++ {
			d.remove = append(d.remove, l.batch(b))
		}
		d.clean(ctx)
		d.remove = append(d.remove, l.prefix()) // again next time: a write without an answer may come late
	}
	return nil
}

// quiet waits until no write to l is under way.
func (d *durable) quiet(ctx context.Context, l *lot) error {
	for {
		d.mu.Lock()
		active := l.active
		d.mu.Unlock()
		if active == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		pause(ctx, 10*time.Millisecond)
	}
}

const durableRule = "no acknowledged write lost"

// judge compares a lot, to which nobody writes any more, with what a node shows of it.
func (d *durable) judge(n *node, l *lot, list []pair) {
	got := map[string]string{}
	for _, p := range list {
		got[p.Key] = string(p.Value)
	}
	acked := 0
	for i, good := range l.acked {
		v, there := got[l.key(i)]
		if good {
			acked++
		}
		if good && !there || there && v != l.value(i) {
			d.wrong.violate(durableRule, "%s shows %q (there: %v) at %s: %q was written (acknowledged: %v)", n.name, v, there, l.key(i), l.value(i), good)
		}
	}
	d.wrong.check(durableRule, acked)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys -= len(l.acked)
	d.checked += acked
	d.missed -= acked
}

// clean removes what was checked; what fails is tried again next time.
func (d *durable) clean(ctx context.Context) {
	for len(d.remove) > 0 {
		if _, _, err := d.any().do(ctx, http.MethodDelete, "/v1/kv/"+d.remove[0]+"?recurse", ""); err != nil {
			return
		}
		d.remove = d.remove[1:]
	}
}

// pairs are all keys below a prefix, as of a consistent read.
func pairs(ctx context.Context, n *node, prefix string) (list []pair, err error) {
	text, _, err := n.do(ctx, http.MethodGet, "/v1/kv/"+prefix+"?recurse&consistent", "")
	var missing *statusError
	if errors.As(err, &missing) && missing.code == http.StatusNotFound {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	return list, err
}

// counts are the acknowledged writes that were looked for, and the others.
func (d *durable) counts() (checked, missed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checked, d.missed
}

// unsent says that a request has certainly not been made.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// settleTime bounds the way back to everything at target after the heal.
const settleTime = 60 * time.Second
