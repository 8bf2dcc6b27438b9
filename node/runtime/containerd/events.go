package containerd

import (
	"context"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"appliance/node/runtime"
)

// Events subscribes to the engine's task events.
func (r *Runtime) Events(ctx context.Context) (<-chan runtime.Event, error) {
	in, errs := r.client.EventService().Subscribe(r.ctx(ctx), `namespace=="`+Namespace+`",topic~="^/tasks/(start|exit|oom)$"`)
	out := make(chan runtime.Event)
	go func() {
		defer close(out)
		for {
			var ev runtime.Event
			select {
			case <-ctx.Done():
				return
			case <-errs:
				return
			case e := <-in:
				var ok bool
				if ev, ok = translate(e); !ok {
					continue
				}
			}
			select {
			case <-ctx.Done():
				return
			case out <- ev:
			}
		}
	}()
	return out, nil
}

func translate(e *events.Envelope) (runtime.Event, bool) {
	if e == nil || e.Event == nil {
		return runtime.Event{}, false
	}
	data, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return runtime.Event{}, false
	}
	switch t := data.(type) {
	case *apievents.TaskStart:
		return runtime.Event{Type: runtime.EventStart, ID: t.ContainerID, At: e.Timestamp}, true
	case *apievents.TaskOOM:
		return runtime.Event{Type: runtime.EventOOM, ID: t.ContainerID, At: e.Timestamp}, true
	case *apievents.TaskExit:
		return runtime.Event{Type: runtime.EventExit, ID: t.ContainerID, At: e.Timestamp}, t.ID == t.ContainerID
	}
	return runtime.Event{}, false
}
