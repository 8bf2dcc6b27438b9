package vip

import (
	"net/netip"
	"time"
)

// A Phase of an instance (RFC 9568 section 6.4, and three of ours).
type Phase string

const (
	Down     Phase = "down"     // no link, or not started
	Backup   Phase = "backup"   // somebody else holds the addresses
	Claiming Phase = "claiming" // waiting for the lease; holds nothing
	Active   Phase = "active"   // holds the addresses
	Leaving  Phase = "leaving"  // holds them until the successor speaks up
	Stopped  Phase = "stopped"
)

// Holds reports whether the addresses are on this node in the phase.
func (p Phase) Holds() bool { return p == Active || p == Leaving }

// impaired is the highest priority of a node whose proxy does not serve. A
// healthy backup takes over from such a node even where preemption is off.
const impaired = 10

// Settings of the state machine.
type Settings struct {
	Source   netip.Addr // breaks ties of priority
	Priority uint8      // 11..254, or 255 for an owner
	Interval time.Duration
	Preempt  bool
	Fenced   bool // a lease must be had to hold
}

// State of an instance. It is a value; Step makes the next one.
type State struct {
	Phase    Phase
	Impaired bool          // the node's proxy does not serve
	Wake     time.Time     // when to Step with Tick
	Heard    time.Duration // interval of the present holder
	Last     time.Time     // of the latest Step
	Until    time.Time     // end of the lease, when fenced
	announce int           // repetitions made so far
	again    time.Time     // when to repeat
	advert   time.Time     // when the next advert is due
	renew    time.Time     // when to ask for the lease again
	claimed  time.Time     // when Claiming began
	worse    time.Time     // when a holder was heard that should yield to this node
}

// An Event is what happened.
type Event struct {
	Kind   Kind
	From   netip.Addr // of Heard
	Advert Advert     // of Heard
	Until  time.Time  // of Granted
}

// Kind of an event.
type Kind int

const (
	Tick     Kind = iota // Wake was reached
	LinkUp               // the interface works; also the start
	LinkDown             // it does not
	Heard                // a peer's advert, of our VRID
	Sick                 // the proxy stopped serving
	Well                 // it serves again
	Granted              // the lease is ours until Until
	Denied               // another has the lease
	NoLease              // it cannot be asked for
	Fault                // an action failed
	Stop                 // leave
)

func (k Kind) String() string {
	return [...]string{"tick", "link up", "link down", "heard", "sick", "well", "granted", "denied", "no lease", "fault", "stop"}[k]
}

// An Action is what the shell must do, in order.
type Action int

const (
	AddAddress Action = iota
	RemoveAddress
	SendAdvert
	SendLeave // an advert of priority 0
	Announce  // gratuitous ARP or unsolicited NA
	Acquire   // ask for the lease, or renew it: Granted or Denied follows
	Release   // give it back
)

// announceAfter repeats announcements, because a switch or host may miss one,
// and the last holder's kernel may have answered a late ARP request. The delays
// count from the takeover.
var announceAfter = []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// announceEvery is how often a holder announces after that: a holder that has
// met another, in one direction only, or a switch that was changed may leave
// visitors with a wrong idea of where the address is.
const announceEvery = 10 * time.Second

// priority is what the node counts for at present.
func (c Settings) priority(s State) uint8 {
	if s.Impaired {
		return max(1, c.Priority/25)
	}
	return c.Priority
}

func (c Settings) skew(s State) time.Duration {
	return time.Duration(256-int(c.priority(s))) * s.Heard / 256
}

// stagger parts backups of one priority whose holder leaves, which they all
// hear at once: two that take over together confuse visitors for a moment. The
// one that leaves holds on meanwhile.
func (c Settings) stagger() time.Duration {
	const places = 8
	host := c.Source.As16()
	return time.Duration(host[15]%places) * c.Interval / (2 * places)
}

// MasterDown is how long silence must last before a backup takes over.
func (c Settings) MasterDown(s State) time.Duration { return 3*s.Heard + c.skew(s) }

// Step is the state machine. It is pure, and total: an event that means nothing
// in a phase changes nothing.
func Step(c Settings, s State, e Event, now time.Time) (State, []Action) {
	if s.Phase == "" {
		s.Phase = Down
	}
	if s.Heard == 0 {
		s.Heard = c.Interval
	}
	stalled := s.Phase.Holds() && !s.Last.IsZero() && now.Sub(s.Last) > c.MasterDown(s)
	expired := s.Phase.Holds() && c.Fenced && !now.Before(s.Until)
	s.Last = now
	var acts []Action
	if stalled || expired {
		// Others had to take us for dead: let go first, then decide.
		s, acts = c.letGo(s, now)
	}
	s, more := c.step(s, e, now)
	acts = append(acts, more...)
	return s, acts
}

func (c Settings) step(s State, e Event, now time.Time) (State, []Action) {
	switch e.Kind {
	case Sick, Well:
		s.Impaired = e.Kind == Sick
	case LinkUp:
		if s.Phase == Down {
			return c.backup(s, now), nil
		}
	case LinkDown:
		if s.Phase != Stopped {
			held := s.Phase
			s, acts := c.letGo(s, now)
			s.Phase, s.Wake = Down, time.Time{}
			if held == Leaving {
				s.Phase = Stopped
			}
			return s, acts
		}
	case Stop:
		return c.stop(s, now)
	case Fault:
		if s.Phase.Holds() {
			return c.letGo(s, now)
		}
	case Heard:
		return c.heard(s, e, now)
	case Granted:
		return c.granted(s, e, now)
	case Denied:
		return c.denied(s, now)
	case NoLease:
		if s.Phase == Claiming {
			return c.giveUp(s, now), nil
		}
		// A holder whose renewal failed holds on until the lease it has ends.
	case Tick:
		return c.tick(s, now)
	}
	return s, nil
}

func (c Settings) backup(s State, now time.Time) State {
	s.Phase, s.Heard = Backup, c.Interval
	s.Wake = now.Add(c.MasterDown(s))
	if c.Priority == 255 && !s.Impaired {
		s.Wake = now
	}
	return s
}

// letGo drops whatever the node has and waits as a backup.
func (c Settings) letGo(s State, now time.Time) (State, []Action) {
	var acts []Action
	if s.Phase.Holds() {
		acts = append(acts, RemoveAddress)
	}
	if c.Fenced && (s.Phase.Holds() || s.Phase == Claiming) {
		acts = append(acts, Release)
	}
	if s.Phase == Leaving {
		s.Phase = Stopped
		return s, acts
	}
	return c.backup(s, now), acts
}

func (c Settings) stop(s State, now time.Time) (State, []Action) {
	switch {
	case s.Phase == Active && c.Fenced: // the successor cannot begin before we end
		s.Phase = Stopped
		return s, []Action{RemoveAddress, Release, SendLeave}
	case s.Phase == Active:
		s.Phase, s.advert = Leaving, now.Add(c.Interval)
		s.Wake = now.Add(c.MasterDown(s))
		return s, []Action{SendLeave}
	case s.Phase == Claiming:
		s.Phase = Stopped
		return s, []Action{Release}
	case s.Phase == Leaving:
		return s, nil
	}
	s.Phase = Stopped
	return s, nil
}

func (c Settings) take(s State, now time.Time) (State, []Action) {
	s.Phase, s.announce = Active, 1
	s.again = now.Add(announceAfter[1])
	s.advert = now.Add(c.Interval)
	s.Heard = c.Interval
	return c.arm(s, now), []Action{AddAddress, SendAdvert, Announce}
}

// announced sets the time of the next announcement.
func (s State) announced() State {
	pause := announceEvery
	if s.announce++; s.announce < len(announceAfter) {
		pause = announceAfter[s.announce] - announceAfter[s.announce-1]
	}
	s.again = s.again.Add(pause)
	return s
}

// arm sets Wake of a holder to the earliest thing due.
func (c Settings) arm(s State, now time.Time) State {
	s.Wake = s.advert
	if s.again.Before(s.Wake) {
		s.Wake = s.again
	}
	if c.Fenced && s.renew.Before(s.Wake) {
		s.Wake = s.renew
	}
	if c.Fenced && s.Until.Before(s.Wake) {
		s.Wake = s.Until
	}
	return s
}

// renewal is a third into what is left of a lease, so that a lost answer can be
// asked for again.
func renewal(until, now time.Time) time.Time {
	return now.Add(max(until.Sub(now)/3, 10*time.Millisecond))
}

func (c Settings) granted(s State, e Event, now time.Time) (State, []Action) {
	if !now.Before(e.Until) { // came too late
		if s.Phase == Claiming {
			return c.backup(s, now), []Action{Release}
		}
		return s, nil
	}
	switch s.Phase {
	case Claiming:
		s.Until, s.renew = e.Until, renewal(e.Until, now)
		return c.take(s, now)
	case Active:
		s.Until, s.renew = e.Until, renewal(e.Until, now)
		return c.arm(s, now), nil
	}
	return s, []Action{Release} // no longer wanted
}

// denied: another has the lease. It may be dead, so ask again until the claim's
// time is up. If it was heard and is merely worse than this node, an advert makes
// it yield; between equals that would have no end.
func (c Settings) denied(s State, now time.Time) (State, []Action) {
	switch s.Phase {
	case Claiming:
		s.Wake = now.Add(c.Interval / 4)
		if !s.worse.IsZero() && now.Sub(s.worse) < c.MasterDown(s) {
			return s, []Action{SendAdvert}
		}
	case Active: // renewal refused: it has passed to another
		return c.letGo(s, now)
	}
	return s, nil
}

// giveUp waits twice as long as others, so that one which can get the lease
// comes first.
func (c Settings) giveUp(s State, now time.Time) State {
	s = c.backup(s, now)
	s.Wake = now.Add(2 * c.MasterDown(s))
	return s
}

func (c Settings) tick(s State, now time.Time) (State, []Action) {
	if now.Before(s.Wake) {
		return s, nil
	}
	switch s.Phase {
	case Backup:
		if !c.Fenced {
			return c.take(s, now)
		}
		s.Phase, s.claimed = Claiming, now
		s.Wake = now.Add(c.MasterDown(s))
		return s, []Action{Acquire}
	case Claiming:
		if now.Sub(s.claimed) >= c.MasterDown(s) {
			return c.giveUp(s, now), []Action{Release}
		}
		s.Wake = s.claimed.Add(c.MasterDown(s))
		return s, []Action{Acquire}
	case Leaving:
		s.Phase = Stopped
		return s, []Action{RemoveAddress}
	case Active:
		var acts []Action
		if !now.Before(s.advert) {
			acts = append(acts, SendAdvert)
			s.advert = now.Add(c.Interval)
		}
		if c.Fenced && !now.Before(s.renew) {
			acts = append(acts, Acquire)
			s.renew = renewal(s.Until, now)
		}
		if !now.Before(s.again) {
			acts = append(acts, Announce)
			s = s.announced()
		}
		return c.arm(s, now), acts
	}
	return s, nil
}

func (c Settings) heard(s State, e Event, now time.Time) (State, []Action) {
	theirs, mine := e.Advert.Priority, c.priority(s)
	switch s.Phase {
	case Backup, Claiming:
		s.Heard = e.Advert.Interval
		switch {
		case theirs == 0, theirs <= impaired && mine > impaired:
			if soon := now.Add(c.skew(s) + c.stagger()); s.Phase == Backup && soon.Before(s.Wake) {
				s.Wake = soon
			}
			return s, nil
		case c.Preempt && theirs < mine:
			s.worse = now
			return s, nil // let our timer run out
		case s.Phase == Claiming && theirs == mine && e.From.Compare(c.Source) < 0:
			return s, nil // of two claimants one must stay
		}
		s.Wake = now.Add(c.MasterDown(s))
		if s.Phase == Claiming { // somebody holds after all
			s.Phase = Backup
			return s, []Action{Release}
		}
	case Leaving:
		if theirs > 0 {
			s.Phase = Stopped
			return s, []Action{RemoveAddress}
		}
	case Active:
		switch {
		case theirs == 0:
			return s, []Action{SendAdvert}
		case theirs > mine || theirs == mine && e.From.Compare(c.Source) > 0:
			s, acts := c.letGo(s, now)
			s.Heard = e.Advert.Interval
			s.Wake = now.Add(c.MasterDown(s))
			// The other has to learn that there were two, and correct the caches.
			return s, append([]Action{SendAdvert}, acts...)
		default: // two holders met: the other lets go; correct the caches
			s.announce, s.again = 1, now.Add(announceAfter[1])
			s.advert = now.Add(c.Interval)
			return c.arm(s, now), []Action{SendAdvert, Announce}
		}
	}
	return s, nil
}
