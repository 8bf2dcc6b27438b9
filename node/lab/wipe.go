package lab

import (
	"context"
	"fmt"

	"appliance/vagrant"
)

// Wipe powers the machine off, empties its disk, powers it on, and lets it
// join again as a new one would, with a token that another member makes.
func (l *Lab) Wipe(ctx context.Context, machine string) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	m, _, err := s.machine(machine)
	if err != nil {
		return err
	}
	helper, err := s.otherMaster(machine)
	if err != nil {
		return err
	}
	if err := l.PowerOff(ctx, machine); err != nil {
		return err
	}
	if err := emptyDir(l.DataDir(machine)); err != nil {
		return fmt.Errorf("wipe %s: %w", machine, err)
	}
	err = l.update(func(s *state) error {
		s.Machines[machine].Member = false
		return l.bootMachine(ctx, s, m)
	})
	if err != nil {
		return err
	}
	if s, err = l.state(); err != nil {
		return err
	}
	t, err := l.moreTokens(ctx, s, helper)
	if err != nil {
		return err
	}
	return l.joinMachine(ctx, s, m, helper, t)
}

// otherMaster is a member that runs, other than the machine.
func (s *state) otherMaster(machine string) (vagrant.Machine, error) {
	for _, m := range s.Cluster.Masters() {
		if ms := s.Machines[m.Name]; m.Name != machine && ms.Member && !ms.Paused && ms.Process.alive() {
			return m, nil
		}
	}
	return vagrant.Machine{}, fmt.Errorf("no other master runs that could let %s in", machine)
}
