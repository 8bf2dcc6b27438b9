// Command notejam is the demo application of the cluster: sign-up, login,
// pads and notes in SQLite. Every instance is equal and keeps no truth in
// memory: accounts, sessions and notes lie in one database file on a volume
// that the instances share, so any instance may answer any request.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg, err := configFromEnv(os.Getenv)
	if err != nil {
		log.Error("configuration refused", "err", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, cfg, log); err != nil {
		log.Error("notejam stopped", "err", err)
		os.Exit(1)
	}
}
