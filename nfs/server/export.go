package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"appliance/nfs/proto"
	"appliance/nfs/store"
)

const (
	volumeIDLen = 16
	// courtesy is how many leases a silent client keeps locks that nobody else wants.
	courtesy = 30
	// originMemory is how long requests of sessions from before a restart are remembered.
	originMemory = 10 * time.Minute
)

// export is the protocol state of one volume.
type export struct {
	name    string
	id      [volumeIDLen]byte
	vo      VolumeOptions
	o       Options
	log     *slog.Logger
	vol     *store.Volume
	bootTag uint32
	verf    [8]byte // write verifier: new at every start
	started time.Time

	mu       sync.Mutex
	nextID   uint64
	clients  map[uint64]*client
	owners   map[string]*client // confirmed
	sessions map[proto.SessionID]*session
	files    map[store.Ino]*fileState
	reclaim  map[string]bool // owners that may still reclaim; nil when grace is over
	oldSess  []proto.SessionID
	conns    map[net.Conn]bool
	closed   bool

	wg   sync.WaitGroup
	stop context.CancelFunc
}

func newExport(name string, v *store.Volume, f volumeFile, o Options) *export {
	x := &export{name: name, vo: f.Options, o: o, vol: v, log: o.Log.With("volume", name), started: o.Now(),
		clients: map[uint64]*client{}, owners: map[string]*client{}, sessions: map[proto.SessionID]*session{},
		files: map[store.Ino]*fileState{}, reclaim: map[string]bool{}, conns: map[net.Conn]bool{}}
	copy(x.id[:], f.ID)
	var r [20]byte
	rand.Read(r[:])
	x.bootTag = binary.BigEndian.Uint32(r[:]) | 1 // never the zero of special stateids
	if x.bootTag == ^uint32(0) {
		x.bootTag = 1
	}
	copy(x.verf[:], r[4:12])
	x.nextID = binary.BigEndian.Uint64(r[12:]) >> 1
	for _, c := range v.Clients() {
		x.reclaim[c] = true
	}
	x.oldSess = v.Origins()
	x.mu.Lock()
	x.maybeEndGrace()
	x.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	x.stop = cancel
	x.wg.Add(1)
	go x.sweep(ctx)
	return x
}

// sweep ends grace and forgets dead clients until ctx is done.
func (x *export) sweep(ctx context.Context) {
	defer x.wg.Done()
	t := time.NewTicker(min(x.o.Lease/4, time.Second))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		x.mu.Lock()
		now := x.o.Now()
		x.maybeEndGrace()
		for _, c := range x.clients {
			idle := now.Sub(c.seen)
			if idle > courtesy*x.o.Lease || idle > x.o.Lease && len(c.opens) == 0 && len(c.sessions) == 0 {
				x.expire(c)
			}
		}
		if x.oldSess != nil && now.Sub(x.started) > originMemory {
			for _, s := range x.oldSess {
				x.vol.Forget(s)
			}
			x.oldSess = nil
		}
		x.mu.Unlock()
	}
}

// maybeEndGrace ends grace when everybody has reclaimed or time is up. Called with mu held.
func (x *export) maybeEndGrace() {
	if x.reclaim == nil {
		return
	}
	late := x.o.Now().Sub(x.started) > x.o.Grace
	if len(x.reclaim) > 0 && !late {
		return
	}
	var lsn uint64
	for owner := range x.reclaim {
		x.log.Warn("client did not come back in the grace period: its locks are gone", "client", owner)
		n, err := x.vol.RemoveClient(owner)
		if err != nil {
			return // the volume has stopped
		}
		lsn = max(lsn, n)
	}
	if x.vol.Wait(lsn) != nil || x.vol.FreeOrphans() != nil {
		return
	}
	x.reclaim = nil
	x.log.Info("volume serves", "after", x.o.Now().Sub(x.started))
}

// grace says whether new state must wait for reclaims. Called with mu held.
func (x *export) grace() bool { return x.reclaim != nil }

func (x *export) inGrace() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.grace()
}

// expire takes a client's state away. That it may not reclaim is durable before its locks are free.
// Called with mu held.
func (x *export) expire(c *client) {
	if x.owners[c.owner] == c {
		lsn, err := x.vol.RemoveClient(c.owner)
		if err != nil || x.vol.Wait(lsn) != nil {
			return
		}
		x.log.Warn("client lost its state", "client", c.owner, "peer", c.peer, "silent", x.o.Now().Sub(c.seen))
	}
	x.dropClient(c)
}

// fence expires all clients of a host: our FUSE mounts, whose owner starts with its id, and its
// kernel client, whose owner is "Linux NFSv4.1 <id>/<host name>" once the id is its identifier.
func (x *export) fence(id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, owner := range x.vol.Clients() {
		if owner != id && !strings.HasPrefix(owner, id+"/") && !strings.Contains(owner, " "+id+"/") {
			continue
		}
		if c := x.owners[owner]; c != nil {
			x.expire(c)
		}
		lsn, err := x.vol.RemoveClient(owner)
		if err == nil {
			err = x.vol.Wait(lsn)
		}
		if err != nil {
			return fmt.Errorf("fence %s from volume %s: %w", id, x.name, err)
		}
		delete(x.reclaim, owner)
	}
	x.maybeEndGrace()
	return nil
}

// lapsed says whether a client's lease is over, so that its locks yield to a conflict.
func (x *export) lapsed(c *client) bool { return x.o.Now().Sub(c.seen) > x.o.Lease }

func (x *export) openCount() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for _, f := range x.files {
		n += len(f.opens)
	}
	return n
}

func (x *export) stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Stats{Usage: x.vol.Usage(), Clients: len(x.owners), Grace: x.grace()}
	for _, f := range x.files {
		s.Opens += len(f.opens)
		s.Locks += len(f.locks)
	}
	if err := x.vol.Err(); err != nil {
		s.Failed = err.Error()
	}
	return s
}

func (x *export) close() error {
	x.mu.Lock()
	x.closed = true
	for c := range x.conns {
		c.Close()
	}
	x.mu.Unlock()
	x.stop()
	x.wg.Wait()
	return x.vol.Close()
}
