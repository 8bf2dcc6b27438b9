package fault

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The kinds of faults.
const (
	Kill     = "kill"     // the service gets SIGKILL, again and again until the deadline
	Pause    = "pause"    // the service gets SIGSTOP
	Cut      = "cut"      // frames from In are dropped, and frames to Out
	Loss     = "loss"     // Percent of the frames are dropped, both ways
	SlowLink = "slowlink" // Rate bytes a second, each way
	FullDisk = "fulldisk"
	SlowDisk = "slowdisk" // Delay for each fsync
	HungDisk = "hungdisk"
	Clock    = "clock"     // Offset from the real time, in a binary built for it
	Address  = "readdress" // Move: the machine has another address
)

// MaxTime bounds a fault: whatever takes longer is no test but an outage.
const MaxTime = time.Hour

// Fault is one fault of one machine. Fields that are not of its kind are zero.
type Fault struct {
	ID      string        `json:"id"`
	Kind    string        `json:"kind"`
	Service []string      `json:"service,omitempty"` // the command line of the service (kill, pause)
	In      []string      `json:"in,omitempty"`      // hardware addresses
	Out     []string      `json:"out,omitempty"`
	Percent float64       `json:"percent,omitempty"`
	Rate    uint64        `json:"bytes_per_second,omitempty"`
	Delay   time.Duration `json:"delay_ns,omitempty"`
	Offset  time.Duration `json:"offset_ns,omitempty"`
	Move    *Move         `json:"move,omitempty"`
	Length  time.Duration `json:"length_ns"` // from the moment it is made
	Began   time.Time     `json:"began"`     // filled in when it is made
	Until   time.Time     `json:"until"`
	Keeper  int           `json:"keeper,omitempty"` // pid, in the machine
	Title   string        `json:"title,omitempty"`  // what whoever began it calls it
	Group   string        `json:"group,omitempty"`  // faults of several machines that are one to the user
	Seen    bool          `json:"seen,omitempty"`   // the service itself has shown it (clock, readdress)
}

// Ended is what is known of a fault that is over.
type Ended struct {
	Fault
	Hits uint64 `json:"hits"` // frames dropped, operations of the disk delayed or refused, signals sent; 1 if the fault was seen
	By   string `json:"by"`   // "keeper", "heal" or "sweep"
}

const (
	recordEnd = ".json"
	endedEnd  = ".ended"
	// maxRecords bounds what can be in force on one machine.
	maxRecords = 64
)

// NewID returns a name for a fault.
func NewID() string { return strings.ToLower(rand.Text()[:8]) }

// List returns the records of the directory in the order of their beginning.
// Another machine's directory may be read, too. No directory is no faults.
func List(dir string) ([]Fault, error) {
	var list []Fault
	err := each(dir, recordEnd, func(path string) error {
		var f Fault
		if err := read(path, &f); err != nil {
			return err
		}
		list = append(list, f)
		return nil
	})
	slices.SortFunc(list, func(a, b Fault) int { return a.Began.Compare(b.Began) })
	return list, err
}

// Results returns what has ended. The files stay: who wants them removes the
// directory.
func Results(dir string) ([]Ended, error) {
	var list []Ended
	err := each(dir, endedEnd, func(path string) error {
		var e Ended
		if err := read(path, &e); err != nil {
			return err
		}
		list = append(list, e)
		return nil
	})
	return list, err
}

func each(dir, end string, fn func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), end) {
			continue
		}
		if err := fn(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may end while we look
			return err
		}
	}
	return err
}

func read(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func write(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// check refuses what makes no sense. It is the last look before anything is
// done; whoever asks checks more.
func (f Fault) check(now time.Time) error {
	switch {
	case f.ID == "" || f.ID != filepath.Base(f.ID):
		return fmt.Errorf("a fault needs an id")
	case !f.Until.After(now) || f.Until.Sub(now) > MaxTime:
		return fmt.Errorf("a fault needs a deadline, at most %s from now", MaxTime)
	}
	switch f.Kind {
	case Kill, Pause:
		if len(f.Service) == 0 {
			return fmt.Errorf("%s needs the command of the service", f.Kind)
		}
	case Cut:
		if len(f.In)+len(f.Out) == 0 {
			return fmt.Errorf("a cut needs hardware addresses")
		}
	case Loss:
		if f.Percent <= 0 || f.Percent > 100 {
			return fmt.Errorf("loss of %g %%: more than 0 and at most 100 is possible", f.Percent)
		}
	case SlowLink:
		if f.Rate < minRate {
			return fmt.Errorf("a link of %d bytes per second: at least %d are possible", f.Rate, minRate)
		}
	case SlowDisk:
		if f.Delay <= 0 || f.Delay > time.Minute {
			return fmt.Errorf("a delay of %s: more than 0 and at most a minute is possible", f.Delay)
		}
	case FullDisk, HungDisk:
	case Address:
		return f.Move.check()
	case Clock:
		if f.Offset == 0 {
			return fmt.Errorf("an offset of 0 is no fault")
		}
	default:
		return fmt.Errorf("there is no fault %q", f.Kind)
	}
	return nil
}

// lock takes the directory's lock; it makes the directory if need be.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
