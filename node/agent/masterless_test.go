package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/node/runtime"
	"appliance/raft/command"
)

// running reports whether the task's container runs, and which one it is.
func (b *bench) running(id string) bool {
	rt := b.engine.Open()
	st, err := rt.Inspect(b.t.Context(), containerID(id))
	return err == nil && st.State == runtime.StateRunning
}

// oneTask is a bench on which web.1 runs; alone is how long masters may be away.
func oneTask(t *testing.T, alone time.Duration) *bench {
	b := newBench(t)
	b.alone = alone
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1", 31000)
	b.state("web.1", model.TaskRunning)
	return b
}

func TestWithoutMastersADeadTaskIsStartedAgainHere(t *testing.T) {
	b := oneTask(t, 300*time.Millisecond)
	pulls := b.engine.Pulls()

	b.fresh.Store(false)
	b.log.down.Store(true)
	for range 2 {
		b.engine.Exit(containerID("web.1"), 3)
		b.until("started again", func() bool { return b.running("web.1") })
	}
	if n := b.engine.Pulls(); n != pulls {
		t.Errorf("it asked for the image %d times; no registry answers", n-pulls)
	}
	if st := b.task("web.1").Status; st.State != model.TaskRunning {
		t.Errorf("the cluster was told %s", st.State)
	}

	// A restarted agent does the same.
	b.stop()
	b.engine.Exit(containerID("web.1"), 3)
	b.start()
	b.until("started again by the next agent", func() bool { return b.running("web.1") })

	b.log.down.Store(false)
	b.fresh.Store(true)
	b.until("the masters hear of it", func() bool { return strings.Contains(b.task("web.1").Status.Message, "while no master answered") })
	b.engine.Exit(containerID("web.1"), 3)
	b.state("web.1", model.TaskFailed)
}

// The last word of the masters is a few seconds old when a node first counts as alone. A task that dies
// in between has nobody who replaces it either.
func TestATaskThatDiesRightAfterTheMastersIsStartedAgainHere(t *testing.T) {
	b := newBench(t)
	b.alone = 300 * time.Millisecond
	b.sync = func(context.Context) error {
		if b.log.down.Load() {
			return errors.New("nobody leads")
		}
		return nil
	}
	b.start()
	b.app(model.AppSpec{Image: "web:1"})
	b.place("web.1", 31000)
	b.state("web.1", model.TaskRunning)
	b.log.down.Store(true) // and the node has not noticed
	b.engine.Exit(containerID("web.1"), 3)
	time.Sleep(2 * standInPoll)
	b.fresh.Store(false)
	b.until("started again", func() bool { return b.running("web.1") })
	b.log.down.Store(false)
	b.fresh.Store(true)
	b.engine.Exit(containerID("web.1"), 3)
	b.state("web.1", model.TaskFailed)
}

func TestShortAbsenceOfMastersIsWaitedOut(t *testing.T) {
	b := oneTask(t, time.Hour)
	b.fresh.Store(false)
	b.engine.Exit(containerID("web.1"), 3)
	time.Sleep(3 * standInPoll)
	if b.running("web.1") || b.task("web.1").Status.State != model.TaskRunning {
		t.Fatal("it did not wait for a master")
	}
	b.fresh.Store(true)
	b.state("web.1", model.TaskFailed)
}

func TestStoppedTaskIsNotStartedAgain(t *testing.T) {
	b := oneTask(t, time.Hour)
	b.fresh.Store(false)
	b.engine.Exit(containerID("web.1"), 0)
	time.Sleep(standInPoll)
	b.do(&command.StopTasks{Tasks: []string{"web.1"}, Why: "scaled down"})
	b.state("web.1", model.TaskKilled)
}
