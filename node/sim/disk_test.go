package sim

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	hraft "github.com/hashicorp/raft"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// Faults of a disk, seen by who stores an entry of the log and a vote.
func TestWritesUnderFaults(t *testing.T) {
	const usual, slow, never = time.Millisecond, 150 * time.Millisecond, 5 * time.Second
	for name, c := range map[string]struct {
		fault    func(d *rafttest.Disk)
		from, to time.Duration // how long an entry takes
		err      error         // of entry and vote
	}{
		"nothing":        {func(*rafttest.Disk) {}, 0, usual, nil},
		"slow":           {func(d *rafttest.Disk) { d.SetWrite(slow) }, slow / 2, slow * 2, nil},
		"fast again":     {func(d *rafttest.Disk) { d.SetWrite(slow); d.SetWrite(0) }, 0, usual, nil},
		"hung for 5 s":   {func(d *rafttest.Disk) { d.Hang(true); time.AfterFunc(never, func() { d.Hang(false) }) }, never, 2 * never, nil},
		"paused for 5 s": {func(d *rafttest.Disk) { d.Pause(true); time.AfterFunc(never, func() { d.Pause(false) }) }, never, 2 * never, nil},
		"hung and paused": {func(d *rafttest.Disk) {
			d.Hang(true)
			d.Pause(true)
			d.Pause(false)
			time.AfterFunc(never, func() { d.Hang(false) })
		}, never, 2 * never, nil},
		"full":         {func(d *rafttest.Disk) { d.Fill(rafttest.NoSpace) }, 0, usual, syscall.ENOSPC},
		"space again":  {func(d *rafttest.Disk) { d.Fill(rafttest.NoSpace); d.Fill(0) }, 0, usual, nil},
		"no new files": {func(d *rafttest.Disk) { d.Fill(rafttest.NoFiles) }, 0, usual, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, s := open(t, 1)
				c.fault(d)
				begin := time.Now()
				err := s.StoreLog(&hraft.Log{Index: 1, Term: 1, Data: []byte("x")})
				if took := time.Since(begin); !errors.Is(err, c.err) || took < c.from || took > c.to {
					t.Errorf("an entry takes %v: %v, want %v to %v and %v", took, err, c.from, c.to, c.err)
				}
				if err := s.Set([]byte("LastVoteCand"), []byte("m2")); !errors.Is(err, c.err) {
					t.Errorf("a vote: %v, want %v", err, c.err)
				}
			})
		})
	}
}

func open(t *testing.T, seed uint64) (*rafttest.Disk, raft.Storage) {
	d := rafttest.NewDisk(seed)
	return d, reopen(t, d)
}

func reopen(t *testing.T, d *rafttest.Disk) raft.Storage {
	s, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A disk without room for files refuses the first entry that needs one.
func TestNoSpaceForFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := open(t, 1)
		d.Fill(rafttest.NoFiles)
		var err error
		for i := uint64(1); err == nil && i < 100; i++ {
			err = s.StoreLog(&hraft.Log{Index: i, Term: 1, Data: make([]byte, 1000)})
			time.Sleep(time.Second) // the store makes its files beside the writes
		}
		if err == nil || d.Effects().NoFiles == 0 {
			t.Errorf("100 KB are stored: %v", err)
		}
	})
}

// A crash in the middle of a write keeps what was stored before, and now and then a part of what was not.
func TestCrashTearsWrites(t *testing.T) {
	lost := 0
	var did rafttest.Effects
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			d, s := open(t, seed)
			if err := s.StoreLog(&hraft.Log{Index: 1, Term: 1}); err != nil {
				t.Fatal(err)
			}
			d.Hang(true)
			go s.StoreLog(&hraft.Log{Index: 2, Term: 1, Data: make([]byte, 3000)})
			synctest.Wait()
			if !d.Writing() {
				t.Error("nothing is being written")
			}
			d.Crash()
			time.Sleep(time.Second)
			s = reopen(t, d)
			last, err := s.LastIndex()
			if err != nil || last < 1 {
				t.Errorf("the last entry is %d: %v", last, err)
			}
			lost += int(2 - last)
			did.Torn, did.Lost = did.Torn+d.Effects().Torn, did.Lost+d.Effects().Lost
		})
	}
	if lost == 0 || lost == 40 || did.Torn == 0 || did.Lost == 0 {
		t.Errorf("%d of 40 entries are lost, %d writes torn, %d lost: want some of each", lost, did.Torn, did.Lost)
	}
}

// hashicorp/raft panics if it cannot store its term: the disk says so, and its process hears no more of it.
func TestTermThatHasNoSpaceEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := open(t, 1)
		ends := 0
		d.Panics = func() {
			ends++
			time.Sleep(time.Second)
			d.Crash()
		}
		d.Fill(rafttest.NoSpace)
		begin := time.Now()
		if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil || time.Since(begin) < time.Second || ends != 1 {
			t.Errorf("the term is stored after %v: %v, %d ends", time.Since(begin), err, ends)
		}
		if term, err := reopen(t, d).GetUint64([]byte("CurrentTerm")); term != 0 {
			t.Errorf("the term is %d: %v", term, err)
		}
	})
}
