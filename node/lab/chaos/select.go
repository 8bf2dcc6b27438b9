package chaos

import (
	"context"
	"slices"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/model"
	"appliance/vagrant"
)

// resolve replaces selectors, which name machines by what they are at that
// moment, by machines. A machine that a selector yields
// belongs to the first group that asked for it.
func (c *Control) resolve(ctx context.Context, groups [][]string) ([][]string, error) {
	var out [][]string
	var taken []string
	for _, g := range groups {
		var list []string
		for _, word := range g {
			machines, err := c.pick(ctx, word, taken)
			if err != nil {
				return nil, err
			}
			list = append(list, machines...)
			taken = append(taken, machines...)
		}
		out = append(out, list)
	}
	return out, nil
}

func (c *Control) pick(ctx context.Context, word string, taken []string) ([]string, error) {
	if _, ok := c.cluster.Machine(word); ok || word == hostName {
		return []string{word}, nil
	}
	var masters, agents []string
	for _, m := range c.cluster.Machines {
		if slices.Contains(taken, m.Name) {
			continue
		}
		if m.Role == vagrant.RoleMaster {
			masters = append(masters, m.Name)
		} else {
			agents = append(agents, m.Name)
		}
	}
	one := func(list []string) []string {
		if len(list) == 0 {
			return nil
		}
		return []string{list[c.rand.IntN(len(list))]}
	}
	switch word {
	case "masters":
		return masters, nil
	case "agents":
		return agents, nil
	case "all":
		return append(masters, agents...), nil
	case "master":
		return one(masters), nil
	case "agent":
		return one(agents), nil
	case "machine":
		return one(append(masters, agents...)), nil
	case "leader", "vip", "follower", "followers", "spare":
		st, err := c.Look(ctx)
		if err != nil {
			return nil, err
		}
		if word == "vip" {
			if st.VIPNode == "" {
				return nil, model.Errorf(model.CodeUnavailable, "nobody is known to hold the virtual address")
			}
			return []string{st.VIPNode}, nil
		}
		if st.Leader == "" {
			return nil, model.Errorf(model.CodeUnavailable, "no leader is known")
		}
		rest := slices.DeleteFunc(masters, func(m string) bool { return m == st.Leader })
		switch word {
		case "follower":
			return one(rest), nil
		case "followers":
			return rest, nil
		case "spare":
			return c.spare(ctx, rest)
		}
		return []string{st.Leader}, nil
	}
	return nil, model.Errorf(model.CodeInvalid, "there is no machine %q in the lab", word).
		Try("name a machine of 'appliance lab status', or one of leader, vip, follower, followers, spare, masters, agents, all, master, agent, machine")
}

// spare is one of the masters that serves no volume. A volume has one server, and its data goes with that
// server's disk.
func (c *Control) spare(ctx context.Context, masters []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, m := range masters {
		volumes, err := get[[]api.VolumeView](ctx, newNode(c.lab, m), api.Prefix+"/volumes?stale")
		if err != nil {
			continue // another one knows as well
		}
		for _, v := range volumes {
			masters = slices.DeleteFunc(masters, func(m string) bool { return m == v.PrimaryName })
		}
		if len(masters) == 0 {
			break
		}
		return masters[:1], nil
	}
	return nil, model.Errorf(model.CodeUnavailable, "no master is known that neither leads nor serves a volume")
}

// lookTime bounds the question who leads.
const lookTime = 2 * time.Second

// words are what the masters say themselves, by machine; the silent ones are
// left out.
func (c *Control) words(ctx context.Context) map[string]api.Status {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	answers := map[string]api.Status{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, m := range c.cluster.Masters() {
		group.Go(func() {
			n := newNode(c.lab, m.Name)
			defer n.http.CloseIdleConnections()
			if st, err := n.status(ctx); err == nil {
				mu.Lock()
				answers[m.Name] = st
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return answers
}

// Look asks the masters for the state and believes the one that has seen
// most.
func (c *Control) Look(ctx context.Context) (best api.Status, err error) {
	found := false
	for _, m := range c.cluster.Masters() {
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		st, e := newNode(c.lab, m.Name).status(ctx)
		cancel()
		if e != nil {
			err = e
			continue
		}
		if !found || st.Leader != "" && (best.Leader == "" || st.Index > best.Index) {
			best, found = st, true
		}
	}
	if found {
		return best, nil
	}
	return best, model.Errorf(model.CodeUnavailable, "no master of the lab answers").Because("%v", err).Try("appliance chaos heal; appliance lab status")
}
