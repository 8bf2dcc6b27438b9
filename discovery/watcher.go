package discovery

import (
	"context"
	"sync"

	"appliance/raft/state"
)

// Watcher keeps the current Table. One recompute serves any number of
// consumers. Safe for concurrent use.
type Watcher struct {
	store *state.Store
	live  Liveness

	mu       sync.Mutex
	table    *Table
	changed  chan struct{} // closed when table.Index has moved
	progress chan struct{} // closed after every recompute
}

// NewWatcher computes the first table; Run keeps it current. live may be nil.
func NewWatcher(store *state.Store, live Liveness) *Watcher {
	if live == nil {
		live = AllAlive{}
	}
	return &Watcher{
		store: store, live: live, table: Catalog(store.Snapshot(), live),
		changed: make(chan struct{}), progress: make(chan struct{}),
	}
}

// Watch is NewWatcher with Run in a goroutine that ends with ctx.
func Watch(ctx context.Context, store *state.Store, live Liveness) *Watcher {
	w := NewWatcher(store, live)
	go w.Run(ctx)
	return w
}

// Run recomputes the table whenever the state or the gossip's opinion has
// changed, until ctx ends. Changes that come while it computes are taken
// together.
func (w *Watcher) Run(ctx context.Context) error {
	for {
		opinion := w.live.Changed() // before the computation, so that no change falls between
		snap := w.store.Snapshot()
		w.publish(Rebuild(w.Current(), snap, w.live))
		if err := wait(ctx, snap, opinion); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, snap *state.Snapshot, opinion <-chan struct{}) error {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		snap.Wait(either, sources...)
	}()
	select {
	case <-done:
	case <-opinion:
		cancel()
		<-done
	}
	return ctx.Err()
}

func (w *Watcher) publish(next *Table) {
	w.mu.Lock()
	defer w.mu.Unlock()
	moved := next.Index != w.table.Index
	w.table = next
	close(w.progress)
	w.progress = make(chan struct{})
	if moved {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// Current returns the table as it is now.
func (w *Watcher) Current() *Table {
	t, _ := w.View()
	return t
}

// View returns the table and a channel that is closed when a newer one exists,
// so that no change falls between looking and waiting.
func (w *Watcher) View() (*Table, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table, w.changed
}

// Next waits until the table is another one than after; nil gets the current
// one at once.
func (w *Watcher) Next(ctx context.Context, after *Table) (*Table, error) {
	for {
		t, changed := w.View()
		if after == nil || t.Index != after.Index {
			return t, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Fresh waits until the table reflects the state as it is now, for readers who
// have just waited for an index of the store.
func (w *Watcher) Fresh(ctx context.Context) error {
	want := sourceIndex(w.store.Snapshot())
	for {
		w.mu.Lock()
		at, progress := w.table.source, w.progress
		w.mu.Unlock()
		if at >= want {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
