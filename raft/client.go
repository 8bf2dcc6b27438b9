package raft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// rpcClient calls masters. Proposals to one master travel together: see gather.
type rpcClient struct {
	http   *http.Client
	ctx    context.Context // ends at close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	// pending are proposals on their way, to all masters.
	pending *pending

	mu     sync.Mutex
	queues map[string]*gather[*sendItem] // by address
	leader string                        // last heard from headerLeader
}

const (
	senders    = 4                     // requests with proposals under way to one master
	sendHold   = 10 * time.Millisecond // how long a proposal waits for the answer to those before it
	rpcWait    = 5 * time.Second       // an append takes milliseconds; a leader without a majority gives up in 0.5 s
	statusWait = time.Second
)

type sendItem struct {
	env  envelope
	done chan sendResult // buffered
}

type sendResult struct {
	reply reply
	err   error
}

func newRPCClient(c *http.Client) *rpcClient {
	r := &rpcClient{http: c, pending: newPending(), queues: map[string]*gather[*sendItem]{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (c *rpcClient) close() {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.tasks.Wait()
}

// propose sends one proposal to addr.
func (c *rpcClient) propose(ctx context.Context, addr string, env envelope, codec ResultCodec) (Outcome, error) {
	if err := c.pending.enter(ctx, env); err != nil {
		return Outcome{}, errRetry{cause: err}
	}
	it, q := &sendItem{env, make(chan sendResult, 1)}, c.queue(addr)
	q.add(it)
	var res sendResult
	select {
	case res = <-it.done:
	case <-ctx.Done():
		dropped := q.drop(it)
		if dropped {
			c.pending.leave(env)
		}
		return Outcome{}, errRetry{cause: ctx.Err(), unsure: !dropped}
	}
	if res.err != nil {
		return Outcome{}, res.err
	}
	text := string(res.reply.body)
	switch res.reply.status {
	case replyDone:
		v, err := codec.DecodeResult(res.reply.body)
		return Outcome{Index: res.reply.index, Value: v}, err
	case replyRetry:
		return Outcome{}, errRetry{cause: fmt.Errorf("%w: %s", ErrNoLeader, text)}
	case replyDenied:
		return Outcome{}, fmt.Errorf("%w: %s", ErrDenied, text)
	case replyFailed:
		return Outcome{}, errors.New(text)
	default:
		return Outcome{}, errRetry{cause: errors.New(text), unsure: true}
	}
}

func (c *rpcClient) queue(addr string) *gather[*sendItem] {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[addr]
	if q == nil {
		q = &gather[*sendItem]{hold: sendHold, most: maxBatch, rounds: senders,
			size: func(it *sendItem) int { return len(it.env) },
			run:  func(round []*sendItem) { c.post(addr, round) }}
		c.queues[addr] = q
	}
	return q
}

// start counts a task of the client; false after close.
func (c *rpcClient) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.tasks.Add(1)
	return true
}

// post sends proposals in one request and hands out the answers.
func (c *rpcClient) post(addr string, batch []*sendItem) {
	var replies []reply
	err := error(errRetry{cause: ErrClosed})
	if c.start() {
		defer c.tasks.Done()
		replies, err = c.ask(addr, batch)
	}
	for i, it := range batch {
		if err != nil {
			it.done <- sendResult{err: err}
		} else {
			it.done <- sendResult{reply: replies[i]}
		}
		c.pending.leave(it.env)
	}
}

func (c *rpcClient) ask(addr string, batch []*sendItem) ([]reply, error) {
	ctx, cancel := context.WithTimeout(c.ctx, rpcWait)
	defer cancel()
	var body []byte
	for _, it := range batch {
		body = appendRequest(body, it.env)
	}
	raw, err := c.do(ctx, "POST", addr, pathPropose, body)
	if err != nil {
		return nil, err
	}
	return parseReplies(raw, len(batch))
}

// do makes one request and reads the answer.
func (c *rpcClient) do(ctx context.Context, method, addr, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		sent := !(errors.As(err, &op) && op.Op == "dial")
		return nil, errRetry{cause: fmt.Errorf("ask master at %s: %w", addr, err), unsure: sent}
	}
	defer resp.Body.Close()
	if leader := resp.Header.Get(headerLeader); leader != "" {
		c.mu.Lock()
		c.leader = leader
		c.mu.Unlock()
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, errRetry{cause: fmt.Errorf("answer of master at %s: %w", addr, err), unsure: true}
	}
	text := strings.TrimSpace(string(raw[:min(len(raw), 2048)]))
	switch resp.StatusCode {
	case http.StatusOK:
		return raw, nil
	case http.StatusServiceUnavailable, http.StatusNotFound: // not found: it is still starting
		return nil, errRetry{cause: fmt.Errorf("master at %s: %s", addr, text)}
	case http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s", ErrDenied, text)
	default:
		return nil, fmt.Errorf("master at %s: %s", addr, text)
	}
}

func (c *rpcClient) readIndex(ctx context.Context, addr string) (uint64, error) {
	var r readReply
	err := c.json(ctx, rpcWait, "POST", addr, pathReadIndex, nil, &r)
	return r.Index, err
}

func (c *rpcClient) status(ctx context.Context, addr string) (statusReply, error) {
	var r statusReply
	err := c.json(ctx, statusWait, "GET", addr, pathStatus, nil, &r)
	return r, err
}

func (c *rpcClient) change(ctx context.Context, addr string, m memberChange, out any) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.json(ctx, defaultWait, "POST", addr, pathMember, body, out)
}

func (c *rpcClient) json(ctx context.Context, limit time.Duration, method, addr, path string, body []byte, v any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	raw, err := c.do(ctx, method, addr, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}
