package sched

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	volumeTimeout = 30 * time.Second // to create one volume
	volumeRetry   = 2 * time.Second  // after a failure
	maxVolumeJobs = 8                // at the same time
)

// volumes creates the volumes that waiting tasks mount, beside the loop.
type volumes struct {
	*Loop
	changed chan struct{} // has an element when an attempt has ended
	jobs    sync.WaitGroup
	mu      sync.Mutex
	busy    map[string]bool
	failed  map[string]failure
}

type failure struct {
	err error
	at  time.Time
}

func newVolumes(l *Loop) *volumes {
	return &volumes{Loop: l, changed: make(chan struct{}, 1), busy: map[string]bool{}, failed: map[string]failure{}}
}

func (v *volumes) wait() { v.jobs.Wait() }

// ensure starts to create what is missing, and notes the last failure at the
// tasks that wait for it.
func (v *volumes) ensure(ctx context.Context, queue []Pending) {
	if v.EnsureVolume == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range queue {
		p := &queue[i]
		for _, name := range p.Volumes {
			v.start(ctx, name, p.App.Env)
		}
		p.Volumes = slices.Clone(p.Volumes)
		for j, name := range p.Volumes {
			if f, ok := v.failed[name]; ok {
				p.Volumes[j] = name + " (" + f.err.Error() + ")"
			}
		}
	}
}

func (v *volumes) start(ctx context.Context, name, env string) {
	if v.busy[name] || len(v.busy) >= maxVolumeJobs || time.Since(v.failed[name].at) < volumeRetry {
		return
	}
	v.busy[name] = true
	v.jobs.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, volumeTimeout)
		defer cancel()
		err := v.EnsureVolume(ctx, name, env)
		v.ended(name, err)
		if err != nil && ctx.Err() == nil {
			select { // look again when the next attempt is due
			case <-time.After(volumeRetry):
			case <-ctx.Done():
			}
		}
		select {
		case v.changed <- struct{}{}:
		default:
		}
	})
}

func (v *volumes) ended(name string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.busy, name)
	if err == nil {
		delete(v.failed, name)
		return
	}
	if _, again := v.failed[name]; !again {
		v.Log.Warn("a volume cannot be created", "volume", name, "err", err)
	}
	v.failed[name] = failure{err, time.Now()}
}
