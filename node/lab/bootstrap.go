package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"appliance/vagrant"
)

const (
	// joinPort is where a node listens for joining ones.
	joinPort = 7600
	// joinTime bounds one machine's way into the cluster, with retries while
	// the first master is still starting.
	joinTime  = 60 * time.Second
	joinRetry = 300 * time.Millisecond
)

// tokens is what 'appliance init --json' prints, as far as the lab needs it.
type tokens struct {
	Join struct {
		Master string `json:"master"`
		Agent  string `json:"agent"`
	} `json:"join"`
}

// Bootstrap makes a cluster of the machines as an operator would: init on the
// first master, join with the printed token on the others, and the service
// started on each. The nodes find their addresses, so that they follow when a
// machine gets another one. Machines that are members already are only started.
// Progress gets each machine's name when it is through; it may be nil.
func (l *Lab) Bootstrap(ctx context.Context, progress func(machine string)) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(string) {}
	}
	first := s.Cluster.Masters()[0]
	join, err := l.found(ctx, s, first)
	if err != nil {
		return err
	}
	progress(first.Name)
	for _, role := range []string{vagrant.RoleMaster, vagrant.RoleAgent} {
		group, ctx := errgroup.WithContext(ctx)
		if role == vagrant.RoleMaster {
			group.SetLimit(1) // members of the quorum join one after the other
		}
		for _, m := range s.Cluster.Machines {
			if m.Role != role || m.Name == first.Name {
				continue
			}
			group.Go(func() error {
				if err := l.joinMachine(ctx, s, m, first, join); err != nil {
					return err
				}
				progress(m.Name)
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// found runs init on the first master, or asks it for tokens if there are
// machines that have not joined yet.
func (l *Lab) found(ctx context.Context, s *state, m vagrant.Machine) (tokens, error) {
	var t tokens
	if s.Machines[m.Name].Member {
		return l.moreTokens(ctx, s, m)
	}
	args := []string{"init", "--cluster", s.Cluster.Name, "--name", m.Name, "--no-start", "--json"}
	if s.Cluster.VIP.IsValid() {
		args = append(args, "--vip", s.Cluster.VIP.String())
	}
	out, err := l.Output(ctx, m.Name, l.command(args...)...)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(out, &t); err != nil || t.Join.Master == "" || t.Join.Agent == "" {
		return t, fmt.Errorf("%s: init printed no join tokens: %v", m.Name, err)
	}
	return t, l.becameMember(ctx, m.Name)
}

func (l *Lab) moreTokens(ctx context.Context, s *state, m vagrant.Machine) (tokens, error) {
	var t tokens
	if err := l.Start(ctx, m.Name); err != nil {
		return t, err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.Machines)), func(ms *machineState) bool { return !ms.Member }) {
		return t, nil
	}
	for role, target := range map[string]*string{vagrant.RoleMaster: &t.Join.Master, vagrant.RoleAgent: &t.Join.Agent} {
		err := l.again(ctx, func() error {
			out, err := l.Output(ctx, m.Name, l.command("token", "create", "--role", role, "--json")...)
			if err != nil {
				return err
			}
			var printed struct{ Token string }
			if err := json.Unmarshal(out, &printed); err != nil || printed.Token == "" {
				return fmt.Errorf("%s: token create printed no token: %v", m.Name, err)
			}
			*target = printed.Token
			return nil
		})
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

func (l *Lab) joinMachine(ctx context.Context, s *state, m, first vagrant.Machine, t tokens) error {
	if s.Machines[m.Name].Member {
		return l.Start(ctx, m.Name)
	}
	token := t.Join.Agent
	if m.Role == vagrant.RoleMaster {
		token = t.Join.Master
	}
	args := []string{"join", "--name", m.Name, "--role", m.Role, "--token", token, "--no-start"}
	for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
		args = append(args, "--attribute", k+"="+m.Attributes[k])
	}
	args = append(args, fmt.Sprintf("%s:%d", first.Address, joinPort))
	err := l.again(ctx, func() error {
		_, err := l.Output(ctx, m.Name, l.command(args...)...)
		return err
	})
	if err != nil {
		return err
	}
	return l.becameMember(ctx, m.Name)
}

func (l *Lab) becameMember(ctx context.Context, machine string) error {
	err := l.update(func(s *state) error {
		s.Machines[machine].Member = true
		return nil
	})
	if err != nil {
		return err
	}
	return l.Start(ctx, machine)
}

// command is a command line of the machine's own binary.
func (l *Lab) command(args ...string) []string {
	return append([]string{binaryDir + "/" + binary}, args...)
}

// again repeats fn until it succeeds or joinTime is over, and returns the
// last error: the first master needs a moment to elect itself.
func (l *Lab) again(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	for {
		err := fn()
		if err == nil || errors.Is(err, ErrOff) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(joinRetry):
		}
	}
}
