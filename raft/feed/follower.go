package feed

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"appliance/raft"
)

// Config says whom to follow and where to keep the state.
type Config struct {
	Replica *raft.Replica
	Client  *http.Client    // wire.Dialer.Client
	Masters func() []string // addresses (host:port) of the masters, in any order
	Dir     string          // keeps the last snapshot; created if missing
	Log     *slog.Logger
}

// Follower keeps a replica up to date from any master. Safe for concurrent use.
type Follower struct {
	conf      Config
	saved     uint64    // index of the snapshot on disk; of the persist loop
	confirmed time.Time // the file's time; of the persist loop
	turn      int       // which master is next
	reset     bool      // the next stream must begin with a snapshot

	mu       sync.Mutex
	status   Status
	prefer   string // the master to ask next, "" for the one whose turn it is
	patience patience
}

// Status tells how far behind the cluster a follower is.
type Status struct {
	Master  string    `json:"master"`  // whom it follows, "" while it looks for one
	Applied uint64    `json:"applied"` // here
	Commit  uint64    `json:"commit"`  // as the master last said
	Contact time.Time `json:"contact"` // last frame, zero if never
	Loaded  time.Time `json:"loaded"`  // as of when the state was that the node started with, zero if it had none
}

// Stale reports whether what this node knows may be old: no master was heard of lately.
func (s Status) Stale(now time.Time) bool { return now.Sub(s.Contact) > 2*silence }

// NewFollower loads the snapshot that an earlier process left, if it is intact. Until Run reaches a
// master the node goes on from that.
func NewFollower(c Config) (*Follower, error) {
	f := &Follower{conf: c, turn: rand.IntN(1 << 16)} // spread the followers over the masters
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Status returns the state of the feed now.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Applied = f.conf.Replica.Applied()
	s.Commit = max(s.Commit, s.Applied)
	return s
}

const (
	pauseMin = 50 * time.Millisecond // after every master was tried once
	pauseMax = time.Second
)

// Run follows until ctx ends, then saves a snapshot. It returns an error if the replica met an entry that
// it must not skip; the process should end then.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f.persist(ctx) })
	defer wg.Wait()
	defer cancel()
	pause, failed := pauseMin, 0
	for ctx.Err() == nil {
		addr, count := f.pick()
		frames := 0
		err := errors.New("no master is known")
		if addr != "" {
			frames, err = f.follow(ctx, addr)
		}
		f.lost(ctx, addr, frames, err)
		if err := f.conf.Replica.Err(); err != nil {
			return err
		}
		if frames > 0 {
			pause, failed = pauseMin, 0
			continue
		}
		if failed++; failed >= count { // a whole round without success
			wait(ctx, pause/2+rand.N(pause))
			pause, failed = min(2*pause, pauseMax), 0
		}
	}
	return nil
}

func (f *Follower) pick() (addr string, count int) {
	all := f.conf.Masters()
	if len(all) == 0 {
		return "", 1
	}
	f.mu.Lock()
	addr, f.prefer = f.prefer, ""
	f.mu.Unlock()
	if addr != "" {
		return addr, len(all)
	}
	f.turn++
	return all[f.turn%len(all)], len(all)
}

// lost logs the change from following to not following, once.
func (f *Follower) lost(ctx context.Context, addr string, frames int, err error) {
	f.mu.Lock()
	f.status.Master = ""
	f.mu.Unlock()
	if frames > 0 && ctx.Err() == nil {
		f.conf.Log.Info("feed lost, asking another master", "master", addr, "index", f.conf.Replica.Applied(), "err", err)
	}
}

var errSilent = errors.New("the master fell silent")

// follow applies one stream and returns the number of frames received.
func (f *Follower) follow(ctx context.Context, addr string) (frames int, err error) {
	s := newSearch(time.Now())
	defer s.wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer dog.Stop()
	extra := ""
	if f.reset {
		extra = "&snapshot=1"
	}
	body, err := f.request(ctx, addr, extra)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, 2*chunk)
	for {
		fr, err := readFrame(in)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return frames, err
		}
		dog.Reset(silence)
		frames++
		f.heard(addr, fr)
		if fr.kind == kindHeartbeat {
			f.judge(ctx, s, addr, fr, cancel)
		}
		s.loading.Store(fr.kind == kindSnapshot)
		err = f.take(in, fr, dog)
		s.loading.Store(false)
		if err != nil {
			return frames, err
		}
	}
}

// request asks a master for the feed from where this node stands.
func (f *Follower) request(ctx context.Context, addr, extra string) (io.ReadCloser, error) {
	index, term := f.conf.Replica.Position()
	url := fmt.Sprintf("https://%s%s?from=%d&term=%d%s", addr, Path, index, term, extra)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := f.conf.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, fmt.Errorf("master at %s does not feed: %s: %s", addr, resp.Status, text)
	}
	return resp.Body, nil
}

func (f *Follower) heard(addr string, fr frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status.Master == "" {
		f.conf.Log.Info("following the log", "master", addr, "index", f.conf.Replica.Applied())
	}
	f.status.Master, f.status.Contact = addr, time.Now()
	if fr.kind == kindHeartbeat {
		f.status.Commit = fr.nums[1]
	}
}

// take acts on one frame, and on the frames that already arrived with it.
func (f *Follower) take(in *bufio.Reader, fr frame, dog *time.Timer) error {
	switch fr.kind {
	case kindHeartbeat:
		return nil
	case kindEntry:
		items := []item{fr.item()}
		for len(items) < streamBatch && entryBuffered(in) {
			next, err := readFrame(in)
			if err != nil {
				return err
			}
			items = append(items, next.item())
		}
		return f.apply(items)
	case kindSnapshot:
		return f.receive(in, fr, dog)
	}
	return fmt.Errorf("%w: kind %q out of place", errFrame, fr.kind)
}

// entryBuffered reports whether a whole entry frame can be read without waiting.
func entryBuffered(in *bufio.Reader) bool {
	if in.Buffered() < 5 {
		return false
	}
	head, err := in.Peek(5)
	return err == nil && head[4] == kindEntry && uint64(in.Buffered()) >= 4+uint64(binary.BigEndian.Uint32(head))
}

var errGap = errors.New("entries are missing in the feed")

// apply applies what is new. Nothing is applied beyond a gap: the next stream begins with a snapshot.
func (f *Follower) apply(items []item) error {
	at := f.conf.Replica.Applied()
	var entries []raft.Entry
	var gap error
	for _, it := range items {
		if it.Index <= at {
			continue
		}
		if it.prev != at {
			gap = fmt.Errorf("%w between %d and %d", errGap, at, it.Index)
			break
		}
		entries = append(entries, it.Entry)
		at = it.Index
	}
	if len(entries) > 0 {
		f.conf.Replica.Apply(entries)
	}
	if gap != nil {
		f.reset = true
		return gap
	}
	return f.conf.Replica.Err()
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
