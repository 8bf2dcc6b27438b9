package containerd

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/typeurl/v2"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// Stats asks the shim, which reads the cgroup.
func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	ctx = r.ctx(ctx)
	_, task, err := r.running(ctx, id)
	if err != nil {
		return runtime.Stats{}, err
	}
	m, err := task.Metrics(ctx)
	if err != nil {
		return runtime.Stats{}, wrap(err, "stats of container %s", id)
	}
	data, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("stats of container %s: %w", id, err)
	}
	out := runtime.Stats{At: time.Now()}
	switch s := data.(type) {
	case *v1.Metrics:
		fromV1(s, &out)
	case *v2.Metrics:
		fromV2(s, &out)
	default:
		return out, fmt.Errorf("stats of container %s: unknown type %T", id, data)
	}
	return out, nil
}

// unlimited is what cgroup v1 reports without a limit: about 2^63, rounded
// down to pages.
const unlimited = 1 << 62

func fromV1(s *v1.Metrics, out *runtime.Stats) {
	out.CPU = time.Duration(s.GetCPU().GetUsage().GetTotal())
	out.Throttled = time.Duration(s.GetCPU().GetThrottling().GetThrottledTime())
	mem := s.GetMemory()
	out.MemoryBytes = sub(mem.GetUsage().GetUsage(), mem.GetTotalInactiveFile())
	if l := mem.GetUsage().GetLimit(); l < unlimited {
		out.MemoryLimit = l
	}
	out.Pids = s.GetPids().GetCurrent()
	out.OOMKills = s.GetMemoryOomControl().GetOomKill()
}

func fromV2(s *v2.Metrics, out *runtime.Stats) {
	out.CPU = time.Duration(s.GetCPU().GetUsageUsec()) * time.Microsecond
	out.Throttled = time.Duration(s.GetCPU().GetThrottledUsec()) * time.Microsecond
	mem := s.GetMemory()
	out.MemoryBytes = sub(mem.GetUsage(), mem.GetInactiveFile())
	if l := mem.GetUsageLimit(); l < unlimited {
		out.MemoryLimit = l
	}
	out.Pids = s.GetPids().GetCurrent()
	out.OOMKills = s.GetMemoryEvents().GetOomKill()
}

func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// Update changes the limits at once.
func (r *Runtime) Update(ctx context.Context, id string, res runtime.Resources) error {
	ctx = r.ctx(ctx)
	_, task, err := r.running(ctx, id)
	if err != nil {
		return err
	}
	return wrap(task.Update(ctx, client.WithResources(linuxResources(res))), "update container %s", id)
}

// Logs reads the container's files.
func (r *Runtime) Logs(ctx context.Context, id string, opts runtime.LogOptions) error {
	st, err := r.Inspect(ctx, id)
	if err != nil || st.LogDir == "" {
		return err
	}
	if !opts.Follow {
		return logs.Copy(ctx, st.LogDir, opts, nil)
	}
	done := make(chan struct{})
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(done)
		_, _ = r.Wait(waitCtx, id) // gone or unknown ends the following too
	}()
	err = logs.Copy(ctx, st.LogDir, opts, done)
	cancel()
	<-done
	return err
}
