package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// keepAlive is how often a silent stream sends its line again, so that a dead
// connection is noticed on both sides.
const keepAlive = 5 * time.Second

// watch streams the progress of a deployment as JSON lines: one at once, one
// at every change, the last with done.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	started := false
	for {
		snap := s.Store.Snapshot()
		p := progress(snap, id)
		if p == nil && !started {
			return model.Errorf(model.CodeNotFound, "there is no deployment %s", id)
		}
		if p == nil {
			return nil // trimmed from the history while we watched
		}
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		if err := enc.Encode(p); err != nil {
			return nil // the reader is gone
		}
		if rc.Flush() != nil || p.Done {
			return nil
		}
		wait, cancel := context.WithTimeout(r.Context(), keepAlive)
		_ = snap.Wait(wait, state.Tasks.Name, state.Deployments.Name, state.Waiting.Name)
		cancel()
		if r.Context().Err() != nil {
			return nil
		}
	}
}

func progress(snap *state.Snapshot, id string) *Progress {
	d := state.Deployments.Get(snap, id)
	if d == nil {
		return nil
	}
	p := &Progress{Deployment: d, Done: d.State != model.DeploymentRunning, Waiting: named(snap, state.Waiting.Get(snap, d.App))}
	for t := range state.Tasks.By(snap, "app", d.App) {
		if t.Live() || t.Status.At.After(d.StartedAt) {
			p.Tasks = append(p.Tasks, taskView(snap, t))
		}
	}
	slices.SortFunc(p.Tasks, func(x, y TaskView) int { return x.CreatedAt.Compare(y.CreatedAt) })
	return p
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	snap := s.Store.Snapshot()
	t := state.Tasks.Get(snap, r.PathValue("task"))
	if t == nil {
		return model.Errorf(model.CodeNotFound, "there is no task %s", r.PathValue("task")).Try("list them with: appliance ps --all")
	}
	q := r.URL.Query()
	stream := q.Get("stream")
	if stream == "" {
		stream = "stdout"
	}
	if stream != "stdout" && stream != "stderr" {
		return model.Errorf(model.CodeInvalid, "a task has no stream %q", stream).Try("use stdout or stderr")
	}
	tail, _ := strconv.Atoi(q.Get("tail")) // 0: everything
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return s.Cluster.Logs(r.Context(), t, stream, q.Has("follow"), tail, flushing{w, http.NewResponseController(w)})
}

// flushing sends every write on at once.
type flushing struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}
