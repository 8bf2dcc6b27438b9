package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// openRetry is the pause between attempts to open the database: a volume
	// that is failing over comes back within seconds.
	openRetry = 250 * time.Millisecond
	// shutdownGrace bounds the wait for running requests after the drain.
	shutdownGrace = 10 * time.Second
)

// run serves until ctx ends, then drains. The port opens before the database
// does, so that a slow volume shows as "not ready" rather than as a refusal.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w: free the port or set PORT", cfg.addr, err)
	}
	app := newApp(cfg.place, log)
	defer app.close()
	server := &http.Server{
		Handler:           app.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       75 * time.Second, // longer than a proxy's pool keeps a connection
		MaxHeaderBytes:    32 << 10,
	}
	opening, cancel := context.WithCancel(ctx)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		app.open(opening, cfg.db)
	}()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("serving", "addr", listener.Addr().String(), "db", cfg.db, "environment", cfg.place.Environment, "release", cfg.place.Release)

	select {
	case err = <-served:
	case <-ctx.Done():
		err = drain(app, server, cfg.drain, log)
	}
	cancel()
	<-opened
	return err
}

// drain keeps the port open and answering while health says 503, so that
// proxies leave before the listener does.
func drain(app *app, server *http.Server, wait time.Duration, log *slog.Logger) error {
	app.draining.Store(true)
	log.Info("draining", "for", wait)
	time.Sleep(wait)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("requests still running after %s: %w", shutdownGrace, err), server.Close())
	}
	log.Info("stopped")
	return nil
}
