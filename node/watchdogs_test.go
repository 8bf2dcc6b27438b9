package node

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/discovery/gossip"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/command"
)

func TestLeaderWithABadClockShouldNotLead(t *testing.T) {
	w := newWatchdogs(slog.New(slog.DiscardHandler))
	ahead := time.Duration(0)
	unfit := map[string]bool{}
	w.unfit = func(reason string, bad bool) { unfit[reason] = bad }
	w.leads = func() bool { return true }
	w.look = func(s *doctor.Sample, _ bool) { s.Node, s.Clock = "mm1", doctor.Clock{Known: true, Ahead: ahead} }
	now := time.Now()
	run := func(d time.Duration) {
		for range int(d / time.Second) {
			now = now.Add(time.Second)
			w.step(now)
		}
	}
	run(5 * time.Second)
	ahead = -3 * time.Second
	run(2 * time.Second)
	if unfit["its clock is off"] || len(w.alerts()) > 0 {
		t.Fatal("one bad measurement counts")
	}
	run(5 * time.Second)
	if !unfit["its clock is off"] || !slices.Equal(w.alerts(), []gossip.Alert{{Code: uint16(doctor.ClockOffset), Error: true}}) {
		t.Fatalf("unfit %v, alerts %v", unfit, w.alerts())
	}
	ahead = 0
	run(12 * time.Second)
	if own, shared := w.findings(); unfit["its clock is off"] || len(own)+len(shared) > 0 {
		t.Errorf("unfit %v, %v %v", unfit, own, shared)
	}
}

// A full disk costs the reserve, and the node must not lead until it is back.
func TestReserveIsGivenUpOnAFullDisk(t *testing.T) {
	dir, free := t.TempDir(), uint64(10<<30)
	w := newWatchdogs(slog.New(slog.DiscardHandler))
	unfit := map[string]bool{}
	w.unfit = func(reason string, bad bool) { unfit[reason] = bad }
	w.leads = func() bool { return false }
	w.look = func(s *doctor.Sample, _ bool) {
		disk, err := doctor.ReadDisk(dir)
		if err != nil {
			t.Fatal(err)
		}
		disk.Size, disk.Free, disk.ReserveWanted = 100<<30, free, 1<<20
		s.Node, s.Disk = "mm1", disk
	}
	now := time.Now()
	step := func() { now = now.Add(time.Second); w.step(now) }
	step()
	step()
	if unfit[unfitReserve] || w.sample.Disk.Reserve != 1<<20 {
		t.Fatalf("reserve %+v", w.sample.Disk)
	}
	free = 0
	step()
	if !unfit[unfitReserve] || w.sample.Disk.Reserve != 0 {
		t.Fatalf("full: unfit %v, %+v", unfit, w.sample.Disk)
	}
	free = 10 << 30
	step()
	if unfit[unfitReserve] || w.sample.Disk.Reserve != 1<<20 {
		t.Errorf("room again: unfit %v, %+v", unfit, w.sample.Disk)
	}
}

func TestHistoryTellsWhichErrorsAreOpen(t *testing.T) {
	c := discoverytest.New()
	say := func(subject, code, text string) {
		c.Must(&command.RecordEvent{Event: model.Event{Kind: eventDoctor, Subject: subject, Text: text, Fields: map[string]string{"code": code}}})
	}
	say("mm1", "D001", "the disk is almost full")
	say("mm2", "D010", "the clock is off")
	say("mm1", "D001", overPrefix+"the disk is almost full")
	open := openErrors(c.Store.Snapshot())
	if len(open) != 1 || open[trouble{"mm2", "D010"}] != "the clock is off" {
		t.Errorf("open: %v", open)
	}
}

// A disk that hangs stops the examination, and nothing else: what asks the
// watchdogs is answered, and told why they know nothing new.
func TestFindingsDoNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatchdogs(slog.New(slog.DiscardHandler))
		hangs, works := make(chan struct{}), make(chan struct{})
		close(works)
		disk := works
		w.unfit, w.leads = func(string, bool) {}, func() bool { return false }
		w.look = func(s *doctor.Sample, _ bool) { s.Node = "ms1"; <-disk }
		w.step(time.Now())
		disk = hangs
		go w.step(time.Now())
		synctest.Wait()
		if own, shared := w.findings(); len(own)+len(shared) != 0 {
			t.Errorf("a look that lasts a moment: %v %v", own, shared)
		}
		w.down("DNS", "the port is taken", "free it")
		time.Sleep(hangAfter)
		own, _ := w.findings()
		if len(own) != 1 || own[0].Code != doctor.PartDown || own[0].Severity != doctor.Error || own[0].Node != "ms1" || own[0].Fix == "" {
			t.Errorf("a look that hangs: %+v", own)
		}
		if a := w.alerts(); len(a) != 1 || !a[0].Error {
			t.Errorf("the others hear %v", a)
		}
		close(hangs)
		synctest.Wait()
		if own, _ := w.findings(); len(own) != 0 {
			t.Errorf("when the disk works again: %+v", own)
		}
	})
}
