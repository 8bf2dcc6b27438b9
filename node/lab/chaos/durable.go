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

// slots is how many keys one writer uses in turn: the store stays small
// however long the run is.
const slots = 100

// durable writes numbers through all nodes in turn. Of each key it knows the
// last number that was acknowledged and the last that was tried: what the
// store holds is between them, or an acknowledged write is lost.
type durable struct {
	nodes []*node
	wrong *verdicts

	mu    sync.Mutex
	acked [][slots]int
	tried [][slots]int
	count int // acknowledged writes
}

func newDurable(nodes []*node, wrong *verdicts, writers int) *durable {
	return &durable{nodes: nodes, wrong: wrong, acked: make([][slots]int, writers), tried: make([][slots]int, writers)}
}

func durableKey(writer, slot int) string { return fmt.Sprintf("chaos/durable/%d/%d", writer, slot) }

func (d *durable) writer(w int) func(ctx context.Context) error {
	n := 0
	return func(ctx context.Context) error {
		n++
		slot := n % slots
		d.mu.Lock()
		d.tried[w][slot] = n
		d.mu.Unlock()
		text, _, err := d.nodes[rand.IntN(len(d.nodes))].do(ctx, http.MethodPut, "/v1/kv/"+durableKey(w, slot), strconv.Itoa(n))
		if err == nil && strings.TrimSpace(string(text)) != "true" {
			err = fmt.Errorf("the write was answered by %.100s", text)
		}
		if err == nil {
			d.mu.Lock()
			d.acked[w][slot] = n
			d.count++
			d.mu.Unlock()
		}
		return err
	}
}

// pair is a key as the Consul API shows it.
type pair struct {
	Key         string
	Value       []byte
	ModifyIndex uint64
}

// check reads everything back through one node.
func (d *durable) check(ctx context.Context, n *node) error {
	d.mu.Lock()
	acked := append([][slots]int(nil), d.acked...)
	d.mu.Unlock()
	text, _, err := n.do(ctx, http.MethodGet, "/v1/kv/chaos/durable?recurse&consistent", "")
	var missing *statusError
	if errors.As(err, &missing) && missing.code == http.StatusNotFound {
		text, err = []byte("[]"), nil
	}
	var list []pair
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return err // that it is not there now is no loss
	}
	d.mu.Lock()
	tried := append([][slots]int(nil), d.tried...)
	d.mu.Unlock()
	got := map[string]int{}
	for _, p := range list {
		got[p.Key], _ = strconv.Atoi(string(p.Value))
	}
	const rule = "no acknowledged write lost"
	for w := range acked {
		for slot, low := range acked[w] {
			d.wrong.check(rule, 1)
			if v := got[durableKey(w, slot)]; v < low || v > tried[w][slot] {
				d.wrong.violate(rule, "%s shows %d at %s: %d was acknowledged and %d the last that was tried", n.name, v, durableKey(w, slot), low, tried[w][slot])
			}
		}
	}
	return nil
}

// acknowledged is the number of writes.
func (d *durable) acknowledged() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// unsent says that a request has certainly not been made.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// settleTime bounds the way back to everything at target after the heal.
const settleTime = 60 * time.Second
