package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// Start powers the machine on if it is off and starts its service.
func (l *Lab) Start(ctx context.Context, machine string) error {
	err := l.update(func(s *state) error {
		m, ms, err := s.machine(machine)
		if err != nil || ms.Process.alive() {
			return err
		}
		if err := l.bootMachine(ctx, s, m); err != nil {
			return err
		}
		l.log.Info("machine on", "machine", machine)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = l.ask(ctx, machine, request{Op: "start"})
	return err
}

// Stop ends the machine's service in order (SIGTERM) and keeps it stopped.
func (l *Lab) Stop(ctx context.Context, machine string) error {
	_, err := l.ask(ctx, machine, request{Op: "stop"})
	return err
}

// Kill sends SIGKILL to the service. Its containers live on; after a second
// it is started again, unless stay.
func (l *Lab) Kill(ctx context.Context, machine string, stay bool) error {
	_, err := l.ask(ctx, machine, request{Op: "kill", Stay: stay})
	if err == nil {
		l.log.Info("service killed", "machine", machine, "stay", stay)
	}
	return err
}

// PowerOff ends the machine at once, with every process in it. Its disk stays.
func (l *Lab) PowerOff(ctx context.Context, machine string) error {
	return l.update(func(s *state) error {
		_, ms, err := s.machine(machine)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, killTime)
		defer cancel()
		group := filepath.Join(cgroupOf(s.Name), machine)
		if ms.Paused {
			if err := freeze(group, false); err != nil {
				return err
			}
			ms.Paused = false
		}
		if err := ms.Process.kill(ctx); err != nil {
			return err
		}
		ms.Process = process{}
		if err := dropPort(s.Switch, machine); err != nil {
			return err
		}
		l.log.Info("machine off", "machine", machine)
		return removeCgroups(group)
	})
}

// Pause freezes every process of the machine, containers included, as a
// virtual machine that gets no processor time.
func (l *Lab) Pause(machine string) error { return l.pause(machine, true) }

// Resume lets a paused machine go on.
func (l *Lab) Resume(machine string) error { return l.pause(machine, false) }

func (l *Lab) pause(machine string, on bool) error {
	return l.update(func(s *state) error {
		_, ms, err := s.machine(machine)
		if err != nil {
			return err
		}
		if !ms.Process.alive() {
			return fmt.Errorf("%s is powered off: %w: 'appliance lab start %s'", machine, ErrOff, machine)
		}
		if err := freeze(filepath.Join(cgroupOf(s.Name), machine), on); err != nil {
			return err
		}
		ms.Paused = on
		l.log.Info("machine paused", "machine", machine, "paused", on)
		return nil
	})
}

// Link pulls (false) or plugs (true) the machine's network cable.
func (l *Lab) Link(machine string, on bool) error {
	return l.update(func(s *state) error {
		_, ms, err := s.machine(machine)
		if err != nil {
			return err
		}
		if ms.Process.alive() {
			if err := setPort(s.Switch, machine, on); err != nil {
				return err
			}
		}
		ms.LinkDown = !on
		l.log.Info("link", "machine", machine, "up", on)
		return nil
	})
}

// Partition cuts groups of machines from each other. Two or more groups are
// cut from each other; machines in no group keep all their links. A single
// group is cut from every other machine. "host" names the host. Partitions
// add up until Heal.
func (l *Lab) Partition(groups ...[]string) error {
	return l.update(func(s *state) error {
		cuts, err := cutsBetween(s.Cluster, groups)
		if err != nil {
			return err
		}
		return l.cut(s, cuts)
	})
}

// CutOneWay drops what goes from each of the first machines to each of the
// second ones, and nothing else.
func (l *Lab) CutOneWay(from, to []string) error {
	return l.update(func(s *state) error {
		cuts, err := cutsBetween(s.Cluster, [][]string{from, to})
		if err != nil {
			return err
		}
		var oneWay []Cut
		for i := 0; i < len(cuts); i += 2 { // they come in pairs
			oneWay = append(oneWay, cuts[i])
		}
		return l.cut(s, oneWay)
	})
}

func (l *Lab) cut(s *state, cuts []Cut) error {
	s.Cuts = merge(s.Cuts, cuts)
	l.log.Info("network cut", "cuts", s.Cuts)
	return filter(s.Switch, s)
}

// Lose drops that percentage of the frames to and from each machine, at
// random. 0 ends it.
func (l *Lab) Lose(percent float64, machines ...string) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("loss of %g %%: from 0 to 100 is possible", percent)
	}
	return l.update(func(s *state) error {
		for _, m := range machines {
			if _, _, err := s.machine(m); err != nil {
				return err
			}
		}
		if s.Loss == nil {
			s.Loss = map[string]float64{}
		}
		for _, m := range machines {
			s.Loss[m] = percent
		}
		l.log.Info("network loss", "percent", percent, "machines", machines)
		return filter(s.Switch, s)
	})
}

// Heal ends every partition and loss and plugs every cable.
func (l *Lab) Heal() error {
	return l.update(func(s *state) error {
		s.Cuts, s.Loss = nil, nil
		for name, ms := range s.Machines {
			if ms.LinkDown && ms.Process.alive() {
				if err := setPort(s.Switch, name, true); err != nil {
					return err
				}
			}
			ms.LinkDown = false
		}
		l.log.Info("network healed")
		return filter(s.Switch, s)
	})
}

// MachineStatus is what 'lab status' shows of a machine.
type MachineStatus struct {
	Name    string  `json:"name"`
	Role    string  `json:"role"`
	Address string  `json:"address"`
	Power   string  `json:"power"` // on, off, paused
	Link    string  `json:"link"`  // up, down
	Pid     int     `json:"pid,omitempty"`
	Member  bool    `json:"member"`
	Loss    float64 `json:"loss_percent,omitempty"`
	// OffUntil is when a machine that was powered off for a while comes back.
	OffUntil time.Time      `json:"off_until,omitzero"`
	Service  *ServiceStatus `json:"service,omitempty"` // nil if the machine does not answer
}

// Status is the state of a lab.
type Status struct {
	Dir      string          `json:"dir"`
	Network  string          `json:"network"`
	VIP      string          `json:"vip"`
	Machines []MachineStatus `json:"machines"`
	Cuts     []Cut           `json:"cuts,omitempty"`
}

// statusTime bounds the wait for one machine's answer: status must work while
// machines are sick.
const statusTime = 2 * time.Second

// Status asks every machine.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	s, err := l.state()
	if err != nil {
		return Status{}, err
	}
	st := Status{Dir: l.dir, Network: s.Cluster.Network.String(), VIP: s.Cluster.VIP.String(), Cuts: s.Cuts}
	for _, m := range s.Cluster.Machines {
		ms := s.Machines[m.Name]
		one := MachineStatus{Name: m.Name, Role: m.Role, Address: m.Address.String(), Power: "off", Link: "up",
			Member: ms.Member, Loss: s.Loss[m.Name], OffUntil: ms.OffUntil}
		if ms.LinkDown {
			one.Link = "down"
		}
		switch {
		case !ms.Process.alive():
		case ms.Paused:
			one.Power, one.Pid = "paused", ms.Process.Pid
		default:
			one.Power, one.Pid = "on", ms.Process.Pid
			ctx, cancel := context.WithTimeout(ctx, statusTime)
			if ans, err := l.ask(ctx, m.Name, request{Op: "status"}); err == nil {
				one.Service = ans.Service
			}
			cancel()
		}
		st.Machines = append(st.Machines, one)
	}
	return st, nil
}
