package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// DefaultInterval between adverts: a dead holder is replaced within about four.
const DefaultInterval = 100 * time.Millisecond

// A Lease fences holders of one VIP against each other, for example by an entry
// in the replicated log. Methods may block until ctx ends.
type Lease interface {
	// Acquire takes or renews the lease of the named VIP. ok tells whether this
	// node has it, until says up to when, by this node's monotonic clock; the
	// lease must not be granted to another before that. !ok without an error means
	// that another node has it; an error, that nobody could be asked.
	Acquire(ctx context.Context, vip string) (ok bool, until time.Time, err error)
	// Release gives it up early. It is called after the address is removed.
	Release(ctx context.Context, vip string) error
}

// An Instance is one virtual router: addresses of one family that float
// together. Set the fields before Run, and do not change them after.
type Instance struct {
	Name      string // for logs and the lease
	Interface string
	VRID      uint8          // 1..255, unique on the link
	Priority  uint8          // 11..254; 255 for the addresses' owner
	Interval  time.Duration  // default DefaultInterval
	Addresses []netip.Prefix // with the prefix length of the link
	NoPreempt bool           // a better node does not take over from a working one
	// Health reports whether this node's proxy serves. It is asked every
	// Interval and must not block. While it is false the node yields. nil is true.
	Health func() bool
	Lease  Lease // nil: no fencing
	Log    *slog.Logger
	// Changed is called after each change of phase, from the loop; it must not
	// block. nil is allowed.
	Changed func(Status)

	mu     sync.Mutex
	status Status
}

// Status of an instance.
type Status struct {
	Name     string    `json:"name"`
	Phase    Phase     `json:"phase"`
	Since    time.Time `json:"since"`
	Impaired bool      `json:"impaired,omitempty"`
	// Holder is the source address of the node that holds the addresses, as far
	// as is known.
	Holder netip.Addr `json:"holder,omitzero"`
}

// Status returns the present state. It may be called from any goroutine.
func (i *Instance) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

func (i *Instance) check() error {
	switch {
	case i.VRID == 0:
		return errors.New("VRID is 1..255")
	case i.Priority <= impaired:
		return fmt.Errorf("priority %d: use %d..254, lower ones tell of trouble", i.Priority, impaired+1)
	case len(i.Addresses) == 0:
		return errors.New("no address")
	case i.Interval < centisecond || i.Interval > maxAdvert || i.Interval%centisecond != 0:
		return fmt.Errorf("interval %v: use whole centiseconds to 40.95s", i.Interval)
	}
	for _, p := range i.Addresses {
		if !p.IsValid() || p.Addr().Is4() != i.Addresses[0].Addr().Is4() {
			return fmt.Errorf("address %v: invalid, or not of the family of the first", p)
		}
	}
	return nil
}

// Run takes part in the election until ctx ends, then hands over and returns.
// It needs CAP_NET_ADMIN and CAP_NET_RAW.
func (i *Instance) Run(ctx context.Context) error {
	if i.Interval == 0 {
		i.Interval = DefaultInterval
	}
	if i.Log == nil {
		i.Log = slog.Default()
	}
	if err := i.check(); err != nil {
		return fmt.Errorf("vip %s: %w", i.Name, err)
	}
	link, err := netlink.LinkByName(i.Interface)
	if err != nil {
		return fmt.Errorf("vip %s: interface %s: %w", i.Name, i.Interface, err)
	}
	if err := i.Clear(); err != nil {
		return err
	}
	src, err := sourceOf(link, i.Addresses[0].Addr().Is4(), i.Addresses)
	if err != nil {
		return fmt.Errorf("vip %s: %w", i.Name, err)
	}
	sock, err := openSocket(&net.Interface{Index: link.Attrs().Index, Name: i.Interface}, src)
	if err != nil {
		return fmt.Errorf("vip %s: %w", i.Name, err)
	}
	r := &runner{
		Instance: i, link: link, sock: sock,
		set: Settings{
			Source: src, Priority: i.Priority, Interval: i.Interval,
			Preempt: !i.NoPreempt, Fenced: i.Lease != nil,
		},
		events: make(chan Event, 64),
	}
	return r.run(ctx)
}

// Clear removes the addresses if an earlier process has left them on the
// interface. Run does so too; call it before anything listens, or connections
// to an address that is about to go would be accepted and then cut off.
func (i *Instance) Clear() error {
	link, err := netlink.LinkByName(i.Interface)
	if err != nil {
		return fmt.Errorf("vip %s: interface %s: %w", i.Name, i.Interface, err)
	}
	for _, p := range i.Addresses {
		if err := dropAddress(link, p); err != nil {
			return fmt.Errorf("vip %s: %w", i.Name, err)
		}
	}
	return nil
}
