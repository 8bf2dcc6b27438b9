package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"time"
)

// errNotOpen says that the database has not been opened yet.
var errNotOpen = errors.New("database not open yet")

// checkTime bounds a health check; a file system that hangs longer than this
// makes the instance sick.
const checkTime = 2 * time.Second

// readyz says whether requests should come here.
func (a *app) readyz(w http.ResponseWriter, r *http.Request) {
	switch {
	case a.draining.Load():
		http.Error(w, "draining", http.StatusServiceUnavailable)
	case a.store.Load() == nil:
		http.Error(w, errNotOpen.Error(), http.StatusServiceUnavailable)
	default:
		w.Write([]byte("ok\n"))
	}
}

// healthz is readyz plus proof that the database answers.
func (a *app) healthz(w http.ResponseWriter, r *http.Request) {
	s := a.store.Load()
	if s == nil || a.draining.Load() {
		a.readyz(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	if err := a.probe(ctx, s); err != nil {
		http.Error(w, "database does not answer: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

// probe pings in a goroutine of its own: a read on a hung network volume
// cannot be cancelled, so at most one may hang and later checks fail at once
// behind it.
func (a *app) probe(ctx context.Context, s *store) error {
	select {
	case a.check <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.check }()
		done <- s.ping(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		next.ServeHTTP(w, r)
	})
}

func sub(f fs.FS, dir string) fs.FS {
	s, err := fs.Sub(f, dir)
	if err != nil {
		panic(err) // the directory is embedded
	}
	return s
}
