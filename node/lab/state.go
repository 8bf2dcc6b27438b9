package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"appliance/vagrant"
)

// stateFile marks a directory as a lab's: nothing is ever removed without it.
const stateFile = "lab.json"

// state is what the lab must remember between two commands.
type state struct {
	Name     string                   `json:"name"`
	Cluster  vagrant.Cluster          `json:"cluster"`
	Service  []string                 `json:"service"`
	Env      []string                 `json:"env,omitempty"`
	Switch   process                  `json:"switch"`
	Machines map[string]*machineState `json:"machines"`
	Cuts     []Cut                    `json:"cuts,omitempty"`
	Loss     map[string]float64       `json:"loss,omitempty"` // machine -> percent
	Lying    bool                     `json:"lying_disks,omitempty"`
}

type machineState struct {
	Process  process `json:"process"` // pid 1 of the machine, as the host sees it
	Paused   bool    `json:"paused,omitempty"`
	LinkDown bool    `json:"link_down,omitempty"`
	Member   bool    `json:"member,omitempty"` // init or join has succeeded
	// OffUntil is when a machine that was powered off for a while comes back.
	OffUntil time.Time `json:"off_until,omitzero"`
}

func (s *state) machine(name string) (vagrant.Machine, *machineState, error) {
	m, ok := s.Cluster.Machine(name)
	if !ok {
		return m, nil, fmt.Errorf("no machine %q in the lab: the machines are %s", name, names(s.Cluster))
	}
	return m, s.Machines[name], nil
}

func names(c vagrant.Cluster) string {
	var list string
	for i, m := range c.Machines {
		if i > 0 {
			list += ", "
		}
		list += m.Name
	}
	return list
}

// state reads the lab's state; ErrDown if the directory holds no lab.
func (l *Lab) state() (*state, error) { return readState(l.dir) }

func readState(dir string) (*state, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrDown
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: remove the lab with 'appliance lab down'", filepath.Join(dir, stateFile), err)
	}
	return &s, nil
}

func (l *Lab) save(s *state) error {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, stateFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// update runs fn on the state under the lab's lock and saves it, also when fn
// fails: what fn did until then is done.
func (l *Lab) update(fn func(*state) error) error {
	unlock, err := lock(l.dir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.state()
	if err != nil {
		return err
	}
	return errors.Join(fn(s), l.save(s))
}

// lock takes the directory's lock; a second command waits for the first.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrDown
	}
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
