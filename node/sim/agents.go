package sim

import (
	"context"
	"errors"

	"appliance/node/agent"
	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/node/runtime/fake"
	"appliance/raft"
	"appliance/raft/command"
)

// proposer is a process's command.Proposer, as package node has it.
type proposer struct{ core core }

func (p proposer) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	res, err := propose(ctx, p.core, c)
	switch {
	case errors.Is(err, raft.ErrNoLeader), errors.Is(err, context.DeadlineExceeded), errors.Is(err, raft.ErrUnknownOutcome):
		err = model.Errorf(model.CodeUnavailable, "the change did not get through").Because("%v", err)
	}
	return res, err
}

// Images of the workload.
const (
	registry  = "127.0.0.1:5000"
	goodImage = "web:1"
	badImage  = "bad:1" // ends soon after its start
)

func newEngine() *fake.Engine {
	e := fake.New()
	e.Program(registry+"/"+goodImage, serve)
	e.Program(registry+"/"+badImage, fake.ExitAfter(300e6, 1))
	return e
}

// serve runs until it is told to end; asked as a health check it says yes.
func serve(ctx context.Context, p *fake.Proc) int {
	if len(p.Args) > 0 && p.Args[0] == "healthy" {
		return 0
	}
	return fake.UntilTerm(ctx, p)
}

// startAgent runs the agent of a machine until ctx ends. Its containers stay.
func (c *cluster) startAgent(ctx context.Context, m *machine, p *process, fresh func() bool) (done <-chan struct{}, err error) {
	a, err := agent.Open(agent.Config{
		Node: m.id, Name: m.name, Addr: "127.0.0.1", Dir: m.dir + "/agent", Store: p.store, Proposer: proposer{p.core},
		Runtime: m.engine.Open(), Fresh: fresh, Sync: p.core.Linearize, Registry: registry, Now: m.clock.now, Log: c.log.With("at", m.name),
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err != nil {
			c.failed(err)
		}
		a.Close()
	}()
	return ended, nil
}

// containers tells which tasks have a container that runs on a machine, by task id.
func (m *machine) containers() map[string]bool {
	list, err := m.engine.Open().List(context.Background(), nil)
	if err != nil {
		return nil
	}
	out := map[string]bool{}
	for _, s := range list {
		if s.State == runtime.StateRunning {
			out[s.Labels["appliance.task"]] = true
		}
	}
	return out
}
