package chaos

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"appliance/node/lab/fault"
)

// holders looks who has the virtual address, and if several have it, whether
// two of them answer visitors at the same time: one answers before and after
// the other does.
func (w *watch) holders(ctx context.Context) {
	var list []string
	for _, m := range w.cluster.Machines {
		addrs, err := w.lab.Addresses(m.Name)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a == w.cluster.VIP.String() {
				list = append(list, m.Name)
			}
		}
	}
	w.wrong.check(vipRule, 1)
	w.parted(list)
	if len(list) < 2 {
		return
	}
	for i, a := range list {
		for _, b := range list[i+1:] {
			if w.answers(ctx, a) && w.answers(ctx, b) && w.answers(ctx, a) && w.answers(ctx, b) {
				w.both(a, b)
			}
		}
	}
}

const (
	// hearTime is what two holders have to hear each other, and for one to
	// yield: five adverts.
	hearTime = time.Second
	// lookAgain is the longest time between two looks that are one.
	lookAgain = 2 * time.Second
)

// double is the time in which two machines both answered.
type double struct {
	machines    [2]string
	since, last time.Time
}

// parted ends the doubles of which one does not have the address any more: two
// short ones in a row are not a long one.
func (w *watch) parted(holders []string) {
	maps.DeleteFunc(w.doubles, func(_ string, d *double) bool {
		return !slices.Contains(holders, d.machines[0]) || !slices.Contains(holders, d.machines[1])
	})
}

// both notes that two machines answer. That is the protocol's nature while
// they cannot hear each other (lb/DESIGN.md), and wrong soon after.
func (w *watch) both(a, b string) {
	if w.deaf(a, b) {
		w.wrong.note("while %s and %s could not hear each other, both answered at the virtual address, as lb/DESIGN.md says", a, b)
		delete(w.doubles, a+b)
		return
	}
	w.double(a, b, time.Now())
}

// double notes that two machines answer that hear each other.
func (w *watch) double(a, b string, now time.Time) {
	if w.doubles == nil {
		w.doubles = map[string]*double{}
	}
	d := w.doubles[a+b]
	if d == nil || now.Sub(d.last) > lookAgain {
		d = &double{machines: [2]string{a, b}, since: now}
		w.doubles[a+b] = d
	}
	d.last = now
	if now.Sub(d.since) > hearTime {
		w.wrong.violate(vipRule, "%s and %s have both answered at %s for %s", a, b, w.cluster.VIP, now.Sub(d.since).Round(time.Millisecond))
	}
}

// deaf says whether a fault in force keeps the adverts of one from the other.
func (w *watch) deaf(a, b string) bool {
	var ends [2]end
	for i, m := range []string{a, b} {
		list, err := w.lab.Faults(m)
		mac, macErr := w.lab.HardwareAddr(m)
		if err != nil || macErr != nil {
			return false // it is being started or ended, and will not answer for long
		}
		ends[i] = end{mac, list}
	}
	return parts(ends[0], ends[1])
}

// end is one of two machines with what it suffers.
type end struct {
	mac    string
	faults []fault.Fault
}

// parts says whether the faults of two machines part these two from each
// other, one way at least: the one that is not heard holds on, and the other,
// too. A cut from others does not, nor does a loss that most adverts survive.
func parts(a, b end) bool {
	pass := 1.0 // the share of frames that come through, either way
	for _, side := range []struct {
		faults []fault.Fault
		other  string
	}{{a.faults, b.mac}, {b.faults, a.mac}} {
		for _, f := range side.faults {
			switch {
			case f.Kind == fault.Cut && (slices.Contains(f.In, side.other) || slices.Contains(f.Out, side.other)),
				f.Kind == fault.SlowLink && f.Rate < starvingRate:
				return true
			case f.Kind == fault.Loss:
				pass *= 1 - f.Percent/100
			}
		}
	}
	return pass <= 1-deafLoss/100.0
}

// answerTime is longer than a proxy needs and shorter than a move of the
// address takes.
const answerTime = 300 * time.Millisecond

// answers asks the machine itself, as a visitor whose frames it gets would.
func (w *watch) answers(ctx context.Context, machine string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return w.lab.Dial(ctx, machine, "tcp", addr)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.cluster.VIP.String()+"/", nil)
	if err != nil {
		return false
	}
	req.Host = appHost
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
