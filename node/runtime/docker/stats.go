package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"appliance/node/runtime"
)

// Stats takes one sample; the engine's default takes two, a second apart.
func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	if _, st, err := r.inspect(ctx, id); err != nil {
		return runtime.Stats{}, err
	} else if st.State != runtime.StateRunning {
		return runtime.Stats{}, runtime.Fail(runtime.ErrNotRunning, nil, "stats of container %s", id)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := r.api.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return runtime.Stats{}, wrap(err, "stats of container %s", id)
	}
	defer resp.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return runtime.Stats{}, fmt.Errorf("stats of container %s: %w", id, err)
	}
	out := runtime.Stats{At: time.Now(), CPU: time.Duration(s.CPUStats.CPUUsage.TotalUsage),
		Throttled: time.Duration(s.CPUStats.ThrottlingData.ThrottledTime), MemoryBytes: s.MemoryStats.Usage, Pids: s.PidsStats.Current}
	cache := s.MemoryStats.Stats["total_inactive_file"] // cgroup v1
	if v2, ok := s.MemoryStats.Stats["inactive_file"]; ok && cache == 0 {
		cache = v2
	}
	if cache < out.MemoryBytes {
		out.MemoryBytes -= cache
	}
	if l := s.MemoryStats.Limit; int64(l) < r.memory {
		out.MemoryLimit = l
	}
	return out, nil
}

// Update changes the limits at once.
func (r *Runtime) Update(ctx context.Context, id string, res runtime.Resources) error {
	if _, st, err := r.inspect(ctx, id); err != nil {
		return err
	} else if st.State != runtime.StateRunning {
		return runtime.Fail(runtime.ErrNotRunning, nil, "update container %s", id)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := r.api.ContainerUpdate(ctx, id, container.UpdateConfig{Resources: resources(res)})
	return wrap(err, "update container %s", id)
}

// Events filters the engine's stream.
func (r *Runtime) Events(ctx context.Context) (<-chan runtime.Event, error) {
	in, failed := r.api.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("label", labelNode+"="+r.cfg.Node),
		filters.Arg("event", "start"), filters.Arg("event", "die"), filters.Arg("event", "oom"))})
	types := map[events.Action]runtime.EventType{"start": runtime.EventStart, "die": runtime.EventExit, "oom": runtime.EventOOM}
	out := make(chan runtime.Event)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case <-failed:
				return
			case m := <-in:
				ev := runtime.Event{Type: types[m.Action], ID: m.Actor.Attributes["name"], At: time.Unix(0, m.TimeNano)}
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}
