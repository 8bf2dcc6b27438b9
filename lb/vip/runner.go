package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// runner is the loop of one Instance. All fields belong to the loop, except
// that helpers send to events.
type runner struct {
	*Instance
	set    Settings
	state  State
	link   netlink.Link
	sock   *socket
	events chan Event
	holder netip.Addr
	tasks  sync.WaitGroup
	ctx    context.Context // of helpers; ends after the loop
	asking chan struct{}   // one at a time talks to the lease
	put    time.Time       // when the addresses were last refreshed
	lost   error           // why nobody can hear this node any more
}

func (r *runner) run(ctx context.Context) error {
	helpers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.ctx, r.asking = helpers, make(chan struct{}, 1)
	defer r.tasks.Wait()
	defer r.sock.close() // wakes the receiver
	defer cancel()

	links := make(chan netlink.LinkUpdate, 16)
	done := make(chan struct{})
	defer close(done)
	opts := netlink.LinkSubscribeOptions{ListExisting: true, ErrorCallback: func(error) {}}
	if err := netlink.LinkSubscribeWithOptions(links, done, opts); err != nil {
		return err
	}
	broken := make(chan error, 1)
	r.tasks.Go(func() { broken <- r.receive() })
	health := time.NewTicker(r.Interval)
	defer health.Stop()
	wake := time.NewTimer(0)
	defer wake.Stop()
	if now, err := netlink.LinkByIndex(r.link.Attrs().Index); err == nil && working(now.Attrs()) {
		r.step(Event{Kind: LinkUp})
	}
	stop := ctx.Done()
	for r.state.Phase != Stopped {
		if r.state.Wake.IsZero() {
			wake.Stop()
		} else {
			wake.Reset(time.Until(r.state.Wake))
		}
		select {
		case <-stop:
			stop = nil
			r.step(Event{Kind: Stop})
		case <-wake.C:
			r.step(Event{Kind: Tick})
		case e := <-r.events:
			r.step(e)
		case u, ok := <-links:
			if !ok {
				r.step(Event{Kind: LinkDown})
				return errors.New("lost the kernel's link events")
			}
			r.linkChanged(u)
		case <-health.C:
			r.look()
		case err := <-broken:
			r.step(Event{Kind: LinkDown}) // blind: hold nothing
			return err
		}
		if r.lost != nil {
			r.step(Event{Kind: LinkDown}) // mute: others take over
			return r.lost
		}
	}
	return nil
}

func (r *runner) linkChanged(u netlink.LinkUpdate) {
	if u.Link.Attrs().Index != r.link.Attrs().Index {
		return
	}
	kind := LinkDown
	if u.Header.Type != unix.RTM_DELLINK && working(u.Link.Attrs()) {
		kind = LinkUp
	}
	r.step(Event{Kind: kind})
}

// look asks for health and keeps the kernel from forgetting the addresses.
func (r *runner) look() {
	if r.Health != nil {
		if ok := r.Health(); ok == r.state.Impaired {
			kind := Sick
			if ok {
				kind = Well
			}
			r.step(Event{Kind: kind})
		}
	}
	// A stall must be seen before an address is refreshed.
	r.step(Event{Kind: Tick})
	if r.state.Phase.Holds() && time.Since(r.put) >= refresh {
		if err := r.addAddresses(); err != nil {
			r.Log.Error("vip: cannot keep address", "vip", r.Name, "err", err)
			r.step(Event{Kind: Fault})
		}
	}
}

// step runs the state machine and does what it says. An action that fails is an
// event in turn.
func (r *runner) step(e Event) {
	was := r.state.Phase
	var acts []Action
	now := time.Now()
	if e.Kind == Heard && e.Advert.Priority > 0 {
		r.holder = e.From
	}
	r.state, acts = Step(r.set, r.state, e, now)
	var failed error
	for _, a := range acts {
		if err := r.act(a); err != nil {
			failed = err
			break
		}
	}
	r.publish(was, e, failed)
	if failed != nil && r.state.Phase.Holds() && e.Kind != Fault {
		r.step(Event{Kind: Fault})
	}
}

func (r *runner) act(a Action) error {
	switch a {
	case AddAddress:
		return r.addAddresses()
	case RemoveAddress:
		var failed error
		for _, p := range r.Addresses {
			failed = errors.Join(failed, dropAddress(r.link, p))
		}
		return failed
	case SendAdvert:
		err := r.sock.send(r.advert(r.set.priority(r.state)))
		if err != nil && !ownAddress(r.link, r.set.Source) { // else it is repeated
			r.lost = fmt.Errorf("this machine has lost the address %v, from which it sends adverts: %w", r.set.Source, err)
			return r.lost
		}
	case SendLeave:
		_ = r.sock.send(r.advert(0))
	case Announce:
		for _, p := range r.Addresses {
			_ = sendFrames(r.link.Attrs().Index, gratuitous(p.Addr(), r.link.Attrs().HardwareAddr)) // repeated
		}
	case Acquire:
		r.acquire()
	case Release:
		r.release()
	}
	return nil
}

func (r *runner) addAddresses() error {
	for _, p := range r.Addresses {
		if err := putAddress(r.link, p); err != nil {
			return err
		}
	}
	r.put = time.Now()
	return nil
}

func (r *runner) advert(priority uint8) Advert {
	a := Advert{VRID: r.VRID, Priority: priority, Interval: r.Interval}
	for _, p := range r.Addresses {
		a.Addrs = append(a.Addrs, p.Addr())
	}
	return a
}

// acquire asks for the lease in the background; one question at a time.
func (r *runner) acquire() {
	select {
	case r.asking <- struct{}{}:
	default:
		return // the answer to the former question will do
	}
	r.tasks.Go(func() {
		defer func() { <-r.asking }()
		ctx, cancel := context.WithTimeout(r.ctx, 4*r.Interval+time.Second)
		defer cancel()
		ok, until, err := r.Lease.Acquire(ctx, r.Name)
		e := Event{Kind: Denied}
		switch {
		case err != nil:
			e.Kind = NoLease
		case ok:
			e = Event{Kind: Granted, Until: until}
		}
		select {
		case r.events <- e:
		case <-r.ctx.Done():
		}
	})
}

// releaseLimit bounds giving back a lease; it ends by itself anyway.
const releaseLimit = time.Second

func (r *runner) release() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), releaseLimit)
	r.tasks.Go(func() {
		defer cancel()
		_ = r.Lease.Release(ctx, r.Name)
	})
}

// receive turns packets of our VRID into events until the socket closes.
func (r *runner) receive() error {
	for {
		from, a, err := r.sock.receive()
		switch {
		case errors.Is(err, ErrPacket):
			continue
		case err != nil:
			return err
		case a.VRID != r.VRID || from == r.set.Source:
			continue
		}
		select {
		case r.events <- Event{Kind: Heard, From: from, Advert: a}:
		case <-r.ctx.Done():
			return nil
		}
	}
}

func (r *runner) publish(was Phase, e Event, failed error) {
	r.mu.Lock()
	r.status.Name, r.status.Impaired = r.Name, r.state.Impaired
	r.status.Holder = r.holder
	if r.state.Phase.Holds() {
		r.status.Holder = r.set.Source
	}
	changed := was != r.state.Phase
	if changed {
		r.status.Phase, r.status.Since = r.state.Phase, time.Now()
	}
	status := r.status
	r.mu.Unlock()
	if failed != nil {
		r.Log.Error("vip: action failed", "vip", r.Name, "phase", r.state.Phase, "err", failed)
	}
	if !changed {
		return
	}
	r.Log.Info("vip: phase changed", "vip", r.Name, "from", was, "to", r.state.Phase, "because", e.Kind, "interface", r.Interface)
	if r.Changed != nil {
		r.Changed(status)
	}
}
