package client

import (
	"errors"
	"time"

	"appliance/nfs/lockrange"
	"appliance/nfs/proto"
)

// recover makes a new session unless a newer one than gen exists, and reclaims all state when the
// server does not know the client any more.
func (c *Client) recover(i Interrupt, gen uint64) error {
	c.gate.Lock()
	defer c.gate.Unlock()
	if c.gen != gen {
		return nil
	}
	for {
		err := c.establish(i)
		var st proto.Status
		if !errors.As(err, &st) {
			return err
		}
		if err := c.sleep(i, delayMin); err != nil { // restarted again, or busy
			return err
		}
	}
}

// plain sends a request without SEQUENCE. Called with the gate held for writing.
func (c *Client) plain(i Interrupt, build func(*ops), parse func(*results) error) error {
	o := c.newOps(nil, build)
	rep, err := c.exchange(i, o)
	if err != nil {
		return err
	}
	return o.finish(rep, parse)
}

// locked sends a request in the new session. Called with the gate held for writing.
func (c *Client) locked(i Interrupt, build func(*ops), parse func(*results) error) error {
	for wait := delayMin; ; wait = min(2*wait, delayMax) {
		s := <-c.free
		o := c.newOps(s, build)
		s.seq++
		rep, err := c.exchange(Interrupt{}, o) // a slot cannot be given up half way
		c.free <- s
		if err != nil {
			return err
		}
		err = o.finish(rep, parse)
		if err != proto.ErrDelay {
			return err
		}
		if err := c.sleep(i, wait); err != nil {
			return err
		}
	}
}

func (c *Client) establish(i Interrupt) error {
	id, seq, err := c.exchangeID(i)
	if err != nil {
		return err
	}
	known := c.gen > 0 && id == c.clientID
	if err := c.createSession(i, id, seq); err != nil {
		return err
	}
	c.clientID = id
	if err := c.locked(i, func(o *ops) {
		o.putfh(nil)
		o.getattr(proto.Bits(proto.AttrLease))
	}, func(r *results) error {
		if err := r.putfh(); err != nil {
			return err
		}
		a, err := r.attr()
		if a.Lease > 0 {
			c.lease = time.Duration(a.Lease) * time.Second
		}
		return err
	}); err != nil {
		return err
	}
	if !known {
		if err := c.reclaim(i); err != nil {
			return err
		}
	}
	if c.gen > 0 {
		c.cfg.Log.Info("volume session renewed", "reclaimed", !known)
	}
	c.gen++
	return nil
}

func (c *Client) exchangeID(i Interrupt) (id uint64, seq uint32, err error) {
	err = c.plain(i, func(o *ops) {
		o.op(proto.OpExchangeID)
		o.e.Fixed(c.cfg.Verifier[:])
		o.e.String(c.cfg.Owner)
		o.e.U32(proto.ExchgNonPNFS)
		o.e.U32(0)
		o.e.U32(0)
	}, func(r *results) error {
		if err := r.next(proto.OpExchangeID); err != nil {
			return err
		}
		id, seq = r.d.U64(), r.d.U32()
		return nil
	})
	return id, seq, err
}

func (c *Client) createSession(i Interrupt, id uint64, seq uint32) error {
	ch := proto.Channel{MaxRequest: proto.MaxIO + 8<<10, MaxResponse: proto.MaxIO + 8<<10, MaxCached: 8 << 10, MaxOps: 16, MaxSlots: slots}
	return c.plain(i, func(o *ops) {
		o.op(proto.OpCreateSession)
		o.e.U64(id)
		o.e.U32(seq)
		o.e.U32(0)
		ch.Encode(&o.e)
		ch.Encode(&o.e)
		o.e.U32(0)
		o.e.U32(1)
		o.e.U32(0)
	}, func(r *results) error {
		if err := r.next(proto.OpCreateSession); err != nil {
			return err
		}
		c.session = proto.DecodeSessionID(r.d)
		r.d.U32()
		r.d.U32()
		got := proto.DecodeChannel(r.d)
		if r.d.Err() != nil {
			return r.d.Err()
		}
		c.nslots = int(min(slots, max(1, got.MaxSlots)))
		c.free = make(chan *slot, slots)
		for n := range c.nslots {
			c.free <- &slot{no: uint32(n)}
		}
		return nil
	})
}

// reclaim tells a restarted server what this client holds. What the server refuses is lost, and
// the files concerned answer EIO from then on: another client may have changed them meanwhile.
func (c *Client) reclaim(i Interrupt) error {
	c.smu.Lock()
	var opens []*openState
	for o := range c.opens {
		opens = append(opens, o)
	}
	var files []*File
	for _, f := range c.files {
		files = append(files, f)
	}
	c.smu.Unlock()
	for _, o := range opens {
		if err := c.reclaimOpen(i, o); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := c.reclaimFile(i, f); err != nil {
			return err
		}
	}
	err := c.locked(i, func(o *ops) {
		o.op(proto.OpReclaimComplete)
		o.e.Bool(false)
	}, nil)
	if err == proto.ErrCompleteAlrdy {
		return nil
	}
	return err
}

// restart says that err means the server restarted again, so that recovery must begin anew.
func restart(err error) bool {
	var st proto.Status
	if !errors.As(err, &st) {
		return err != nil
	}
	switch st {
	case proto.ErrBadSession, proto.ErrDeadSession, proto.ErrStaleClientid, proto.ErrSeqMisordered, proto.ErrBadSlot, proto.ErrStaleStateid:
		return true
	}
	return false
}

func (c *Client) reclaimOpen(i Interrupt, s *openState) error {
	err := c.locked(i, func(o *ops) { s.encode(o, c.clientID, proto.ClaimPrevious) }, s.note)
	if err == proto.ErrNoGrace || err == proto.ErrReclaimBad {
		for err = proto.ErrGrace; err == proto.ErrGrace; {
			err = c.locked(i, func(o *ops) { s.encode(o, c.clientID, proto.ClaimFH) }, s.note)
			if err == proto.ErrGrace {
				if err := c.sleep(i, delayMax); err != nil {
					return err
				}
			}
		}
		s.late = true
	}
	if restart(err) {
		return err
	}
	if err != nil {
		s.lost.Store(true)
		c.cfg.Log.Error("open file lost in the server's restart", "err", err)
	}
	return nil
}

func (c *Client) reclaimFile(i Interrupt, f *File) error {
	f.mu.Lock()
	s := f.open
	type held struct {
		owner string
		rs    []lockrange.Range
	}
	var locks []held
	for owner, l := range f.locks {
		locks = append(locks, held{owner, l.set.Ranges()})
	}
	pending := f.pending
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	for _, h := range locks {
		for _, r := range h.rs {
			if s.late {
				s.lost.Store(true)
			}
			if s.lost.Load() {
				c.cfg.Log.Error("file lock lost in the server's restart: the file answers EIO until it is opened again")
				break
			}
			err := c.locked(i, func(o *ops) { s.encodeLock(o, c.clientID, h.owner, r, true) }, f.noteLock(h.owner, r))
			if restart(err) {
				return err
			}
			if err != nil {
				s.lost.Store(true)
			}
		}
	}
	s.late = false
	if s.lost.Load() {
		return nil // another client may have written since: sending now would undo that
	}
	for k := range pending {
		err := c.locked(i, func(o *ops) { encodeWrite(o, s, pending[k].off, pending[k].data, proto.Unstable) }, f.noteResent(k))
		if restart(err) {
			return err
		}
		if err != nil {
			s.lost.Store(true)
		}
	}
	return nil
}

// destroy gives the client id back, when nothing stands in the way.
func (c *Client) destroy() {
	c.gate.Lock()
	defer c.gate.Unlock()
	if c.gen == 0 {
		return
	}
	i := Interrupt{C: c.ctx.Done()}
	c.plain(i, func(o *ops) {
		o.op(proto.OpDestroySession)
		o.e.Fixed(c.session[:])
	}, nil)
	c.plain(i, func(o *ops) {
		o.op(proto.OpDestroyClientid)
		o.e.U64(c.clientID)
	}, nil)
	c.gen = 0
}
