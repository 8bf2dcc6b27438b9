package gossip

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func size(n int) func() int { return func() int { return n } }

func testRow(now time.Time) Row {
	return Row{From: "n1", Version: 42, At: now, Alerts: []Alert{{Code: 12, Error: true}, {Code: 301}}, Links: []Link{
		{To: "n2", State: LinkOK, Heard: true, Since: now.Add(-time.Hour), RTT: 300 * time.Microsecond, Min: 200 * time.Microsecond,
			Offset: -3 * time.Second, Slack: 100 * time.Microsecond},
		{To: "n3", State: LinkRefused, Since: now.Add(-2 * time.Second)},
	}}
}

func TestRowSurvivesTheWire(t *testing.T) {
	now := time.Unix(1000, 0)
	want := testRow(now)
	got, err := decodeRow(want.encode(nil, now), now)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	late, err := decodeRow(want.encode(nil, now.Add(7*time.Second)), now.Add(time.Hour))
	if err != nil || late.At != now.Add(time.Hour-7*time.Second) {
		t.Errorf("a row of 7 s ago is from %v: %v", late.At, err)
	}
}

func TestRowFitsIntoADatagram(t *testing.T) {
	now := time.Unix(1000, 0)
	r := Row{From: strings.Repeat("n", 17), At: now}
	for i := range 60 {
		r.Links = append(r.Links, Link{To: fmt.Sprintf("n%016d", i), State: LinkOK, Since: now.Add(-9999 * time.Hour), RTT: time.Second,
			Min: time.Second, Offset: -time.Hour, Slack: time.Second})
	}
	raw := r.encode(nil, now)
	got, err := decodeRow(raw, now)
	if err != nil || len(raw) > maxRow || len(got.Links) < maxProbes || got.Links[maxProbes-1].To != r.Links[maxProbes-1].To {
		t.Errorf("%d bytes, %d links: %v", len(raw), len(got.Links), err)
	}
}

func FuzzDecodeRows(f *testing.F) {
	now := time.Unix(1e9, 0)
	one := testRow(now)
	f.Add(encodeRows([]Row{one, {From: "n2", At: now}}, now))
	f.Add(encodeRows(nil, now))
	f.Add([]byte{tagRows, 3, rowFormat, 0, 1})
	f.Add([]byte("sabc"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, err := decodeRows(raw, now)
		for _, r := range rows {
			if len(r.From) == 0 || len(r.Links) > maxLinks || len(r.Alerts) > maxAlerts || r.At.After(now) {
				t.Fatalf("%+v", r)
			}
		}
		if err != nil {
			return
		}
		again, err := decodeRows(encodeRows(rows, now), now)
		if err != nil || !reflect.DeepEqual(rows, again) {
			t.Errorf("not the same again: %v\n%+v\n%+v", err, rows, again)
		}
		r := newReach("n1", size(3))
		r.merge(raw, now)
		r.receive(append([]byte{tagBeat}, raw...), now)
		r.receive(append([]byte{tagRow}, raw...), now)
	})
}

func TestTrackNeedsTwoProbesToChange(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := NewTrack("n2", now)
	var got string
	for _, c := range "+-+--+-++-" {
		now = now.Add(time.Second)
		p := Probe{Sent: now, RTT: time.Millisecond, Peer: now, State: LinkOK}
		if c == '-' {
			p = Probe{Sent: now, State: LinkSilent}
		}
		tr.Note(p, now)
		got += map[bool]string{true: "+", false: "-"}[tr.Link().State == LinkOK]
	}
	if got != "++++----++" {
		t.Errorf("states %s", got)
	}
	if want := time.Unix(1009, 0); tr.Link().Since != want {
		t.Errorf("ok since %v, want %v", tr.Link().Since, want)
	}
}

func TestTrackMeasuresTheOtherClock(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := NewTrack("n2", now)
	// The other is 3 s ahead. Slow probes are asymmetric and would say otherwise.
	for i, rtt := range []time.Duration{40, 10, 60, 80} {
		rtt *= time.Millisecond
		now = now.Add(time.Second)
		skew := 3 * time.Second
		if i != 1 {
			skew += rtt / 2
		}
		tr.Note(Probe{Sent: now, RTT: rtt, Peer: now.Add(rtt/2 + skew), State: LinkOK}, now.Add(rtt))
	}
	l := tr.Link()
	if l.Offset != 3*time.Second || l.Slack != 5*time.Millisecond || l.Min != 10*time.Millisecond || l.RTT != 60*time.Millisecond {
		t.Errorf("%+v", l)
	}
}

func TestClockErrorIsOfTheMajority(t *testing.T) {
	ok := func(offset time.Duration) Link { return Link{State: LinkOK, RTT: 2, Offset: offset, Slack: 1} }
	cases := []struct {
		name  string
		links []Link
		want  time.Duration
		known bool
	}{
		{"all agree", []Link{ok(0), ok(1), ok(-1)}, 0, true},
		{"this node is ahead", []Link{ok(-3 * time.Second), ok(-3 * time.Second), ok(-3 * time.Second)}, 3 * time.Second, true},
		{"another is off", []Link{ok(0), ok(0), ok(time.Hour)}, 0, true},
		{"one of two others is off", []Link{ok(0), ok(time.Hour)}, 0, true},
		{"failing links say nothing", []Link{{State: LinkSilent, RTT: 2, Offset: time.Hour}}, 0, false},
		{"alone", nil, 0, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got, _, known := ClockError(c.links); got != c.want || known != c.known {
				t.Errorf("got %v %v", got, known)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	now := time.Unix(1000, 0)
	type view struct {
		state LinkState
		heard bool
	}
	cases := []struct {
		name string
		a, b view // a's of b, b's of a
		want string
	}{
		{"well", view{LinkOK, true}, view{LinkOK, true}, ""},
		{"a to b is lost", view{LinkSilent, true}, view{LinkSilent, false}, "a>b one-way"},
		{"b to a is lost", view{LinkSilent, false}, view{LinkSilent, true}, "b>a one-way"},
		{"nothing passes", view{LinkSilent, false}, view{LinkSilent, false}, "a>b cut"},
		{"b's port is closed to a", view{LinkRefused, true}, view{LinkOK, true}, "a>b port"},
		{"a's port is closed to b", view{LinkOK, true}, view{LinkSilent, true}, "b>a port"},
		{"they do not accept each other", view{LinkDenied, true}, view{LinkDenied, true}, "a>b port b>a port"},
		{"datagrams of a are filtered", view{LinkOK, true}, view{LinkOK, false}, "a>b datagrams"},
		{"not tried yet", view{LinkUntried, false}, view{LinkUntried, false}, ""},
		{"b does not watch a", view{LinkSilent, false}, view{LinkUntried, false}, "a>b unclear"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rows := []Row{{From: "a", At: now, Links: []Link{{To: "b", State: c.a.state, Heard: c.a.heard}}},
				{From: "b", At: now, Links: []Link{{To: "a", State: c.b.state, Heard: c.b.heard}}}}
			var got []string
			for _, f := range Faults(rows, time.Second, now) {
				got = append(got, fmt.Sprintf("%s>%s %s", f.From, f.To, f.Kind))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			if old := Faults(rows, time.Second, now.Add(2*time.Second)); len(old) != 0 {
				t.Errorf("rows of silent nodes make %v", old)
			}
		})
	}
}

func TestPeersAreMutualAndBounded(t *testing.T) {
	var masters, others []string
	for i := range 5 {
		masters = append(masters, fmt.Sprintf("m%d", i))
	}
	for i := range 500 {
		others = append(others, fmt.Sprintf("a%d", i))
	}
	watch := map[string]map[string]bool{}
	total := 0
	for _, id := range append(masters, others...) {
		watch[id] = map[string]bool{}
		for _, p := range Peers(id, masters, others) {
			watch[id][p] = true
		}
		total += len(watch[id])
		if len(watch[id]) > maxProbes || watch[id][id] || !watch[id]["m1"] && id != "m1" {
			t.Fatalf("%s watches %v", id, watch[id])
		}
	}
	oneSided := 0
	for _, a := range others {
		for b := range watch[a] {
			if b[0] == 'a' && !watch[b][a] {
				oneSided++
			}
		}
	}
	if mean := float64(total) / 505; mean < 15 || mean > 27 || oneSided > 60 {
		t.Errorf("%.1f peers each, %d one-sided", mean, oneSided)
	}
	if got := Peers("b", []string{"m"}, []string{"a", "b", "c"}); len(got) != 3 || got[0] != "m" {
		t.Errorf("a small cluster: %v", got)
	}
}

func TestRowsAreForgottenAndPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newReach("a", size(3)), newReach("b", size(3)), newReach("c", size(3))
		a.set([]Link{{To: "b", State: LinkOK}}, nil, time.Now())
		pass := func(from, to *reach) (n int) {
			for _, msg := range from.queue.take(2, 1400, 3) {
				to.receive(msg, time.Now())
				n++
			}
			return n
		}
		pass(a, b)
		time.Sleep(500 * time.Millisecond)
		if pass(b, c) != 1 {
			t.Fatal("b does not pass the row on")
		}
		rows := c.list(time.Now())
		if len(rows) != 1 || rows[0].From != "a" || time.Since(rows[0].At) != 500*time.Millisecond {
			t.Fatalf("c knows %+v", rows)
		}
		time.Sleep(c.life())
		if n := len(c.list(time.Now())); n != 0 {
			t.Errorf("%d rows of a node that is gone", n)
		}
		// Whoever still has it does not bring it back.
		c.merge(encodeRows(rows, time.Now()), time.Now())
		if n := len(c.list(time.Now())); n != 0 {
			t.Error("an old row came back")
		}
	})
}

func TestRowIsSentAtChangesAndNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReach("a", size(3))
		sends := func() int {
			before := r.sent.Version
			sent := 0
			for range 20 {
				r.set([]Link{{To: "b", State: LinkOK, RTT: time.Duration(time.Now().UnixNano() % 7)}}, nil, time.Now())
				if r.sent.Version != before {
					before, sent = r.sent.Version, sent+1
				}
				time.Sleep(time.Second)
			}
			return sent
		}
		if n := sends(); n != 4 {
			t.Errorf("sent %d times in 20 s without news", n)
		}
		r.set([]Link{{To: "b", State: LinkSilent}}, nil, time.Now())
		if r.sent.Links[0].State != LinkSilent {
			t.Error("a broken link waits")
		}
	})
}

func TestClockSetBackDoesNotSilenceANode(t *testing.T) {
	now := time.Unix(1e6, 0)
	others := newReach("b", size(2))
	old := Row{From: "a", Version: uint64(now.UnixMilli()), At: now}
	others.take(old, now)
	a := newReach("a", size(2)) // restarted an hour back
	back := now.Add(-time.Hour)
	a.set(nil, nil, back)
	if a.rows["a"].Version > old.Version {
		t.Fatal("the test proves nothing")
	}
	a.merge(others.exchange(now), back)
	a.set(nil, nil, back)
	fresh := a.rows["a"]
	fresh.At = now
	if !others.take(fresh, now) {
		t.Error("the node does not go on above its old self")
	}
}

// Silence counts from the beat that did not come, and never by much: a link on
// which no beats arrive at all says nothing of when its node died.
func TestSilenceBeginsWithTheMissedBeat(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		why        string
		beat, want time.Duration // before now
	}{
		{"it said goodbye just after a beat", 200 * time.Millisecond, 0},
		{"one beat is missed", 1700 * time.Millisecond, 700 * time.Millisecond},
		{"two are", 2500 * time.Millisecond, maxSilence},
		{"its beats have not come for a minute", time.Minute, maxSilence},
	} {
		r := newReach("n1", size(7))
		r.receive(appendID([]byte{tagBeat}, "n2"), now.Add(-c.beat))
		if got := now.Sub(r.silentSince("n2", now)); got != c.want {
			t.Errorf("%s: missed for %v, want %v", c.why, got, c.want)
		}
	}
	if got := newReach("n1", size(7)).silentSince("n2", now); got != now {
		t.Errorf("one that never sent a beat is missed since %v", got)
	}
}
