package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	leaseKey = "chaos/lease"
	leaseTTL = 10 * time.Second // the least that the Consul API takes
	holdTime = 2 * time.Second
	// maxBeliefs is how many are kept to compare with: leases are short.
	maxBeliefs = 64
)

// belief is a time in which a client thinks that it holds the lease.
type belief struct {
	client      int
	from, until time.Time
}

// leases are clients that take turns at one lock, with sessions that they
// renew as the Consul API asks for.
type leases struct {
	nodes []*node
	wrong *verdicts

	mu      sync.Mutex
	beliefs []*belief
}

// contender is one client. It is used by one goroutine.
type contender struct {
	*leases
	id      int
	session string
	until   time.Time // the session is ours until then, whoever answers or not
	renewed time.Time
	held    *belief
	begun   time.Time
}

func (l *leases) client(id int) func(ctx context.Context) error {
	c := &contender{leases: l, id: id}
	return c.step
}

func (c *contender) any() *node { return c.nodes[rand.IntN(len(c.nodes))] }

// step makes one request.
func (c *contender) step(ctx context.Context) error {
	now := time.Now()
	if c.session != "" && now.After(c.until) {
		c.session, c.held = "", nil // the belief has ended by itself
	}
	switch {
	case c.session == "":
		return c.open(ctx)
	case c.held != nil && now.Sub(c.begun) > holdTime:
		return c.release(ctx)
	case now.Sub(c.renewed) > leaseTTL/5:
		return c.renew(ctx)
	case c.held == nil:
		return c.acquire(ctx)
	}
	return errSkip
}

func (c *contender) open(ctx context.Context) error {
	asked := time.Now()
	text, _, err := c.any().do(ctx, http.MethodPut, "/v1/session/create", `{"Name":"chaos","TTL":"10s","LockDelay":"1ms","NodeChecks":[],"Behavior":"release"}`)
	var made struct{ ID string }
	if err == nil {
		err = json.Unmarshal(text, &made)
	}
	if err == nil {
		c.session, c.until, c.renewed = made.ID, asked.Add(leaseTTL), asked
	}
	return err
}

func (c *contender) renew(ctx context.Context) error {
	asked := time.Now()
	_, _, err := c.any().do(ctx, http.MethodPut, "/v1/session/renew/"+c.session, "")
	var gone *statusError
	if errors.As(err, &gone) && gone.code == http.StatusNotFound {
		if now := time.Now(); now.Before(c.until) {
			c.wrong.violate(leaseRule, "the session of client %d is gone %s before its time", c.id, c.until.Sub(now).Round(time.Millisecond))
		}
		c.session, c.until = "", time.Time{}
		c.end(time.Now())
		return err
	}
	if err == nil {
		c.until, c.renewed = asked.Add(leaseTTL), asked
		c.mu.Lock()
		if c.held != nil {
			c.held.until = c.until
		}
		c.mu.Unlock()
	}
	return err
}

func (c *contender) acquire(ctx context.Context) error {
	text, _, err := c.any().do(ctx, http.MethodPut, "/v1/kv/"+leaseKey+"?acquire="+c.session, c.session)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(text)) == "true" {
		c.begin(time.Now())
	}
	return nil
}

func (c *contender) release(ctx context.Context) error {
	c.end(time.Now()) // before it says so
	_, _, err := c.any().do(ctx, http.MethodPut, "/v1/kv/"+leaseKey+"?release="+c.session, "")
	return err
}

const leaseRule = "never two holders of a lease"

// begin compares with everybody else's beliefs.
func (c *contender) begin(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !now.Before(c.until) {
		return
	}
	c.wrong.check(leaseRule, 1)
	for _, b := range c.beliefs {
		if b.client != c.id && b.until.After(now) {
			c.wrong.violate(leaseRule, "client %d has the lease while client %d still has it for %s", c.id, b.client, b.until.Sub(now).Round(time.Millisecond))
		}
	}
	c.held, c.begun = &belief{c.id, now, c.until}, now
	c.beliefs = append(c.beliefs, c.held)
	if len(c.beliefs) > maxBeliefs {
		c.beliefs = c.beliefs[1:]
	}
}

func (c *contender) end(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil && c.held.until.After(now) {
		c.held.until = now
	}
	c.held = nil
}
