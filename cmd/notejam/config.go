package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// config is what the environment decides; it does not change while running.
type config struct {
	addr  string        // host:port to listen on
	db    string        // database file
	drain time.Duration // how long to serve on after SIGTERM while health says 503
	place place
}

// place is where this instance runs; every page shows it.
type place struct {
	Environment string
	Instance    string
	Release     string
	Node        string
}

// maxDrain bounds NOTEJAM_DRAIN: a scheduler kills after its own grace anyway.
const maxDrain = time.Minute

// shortInstance is how much of a task id a reader needs to tell three apart.
const shortInstance = 12

func configFromEnv(env func(string) string) (config, error) {
	cfg := config{drain: time.Second}
	port := first(env("PORT"), env("PORT0"), "8000")
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return cfg, fmt.Errorf("port %q is not a number from 0 to 65535: set PORT or PORT0", port)
	}
	cfg.addr = net.JoinHostPort("", port)
	cfg.db = filepath.Join(first(env("NOTEJAM_DATA"), "/data"), "notejam.db")
	if s := env("NOTEJAM_DRAIN"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > maxDrain {
			return cfg, fmt.Errorf("NOTEJAM_DRAIN %q is not a duration from 0s to %s", s, maxDrain)
		}
		cfg.drain = d
	}
	host, _ := os.Hostname() // an unnamed host still serves
	cfg.place = place{
		Environment: first(env("APPLIANCE_ENV"), "local"),
		Instance:    first(short(env("APPLIANCE_TASK_ID")), host, "unknown"),
		Release:     first(env("APPLIANCE_RELEASE"), "dev"),
		Node:        first(env("APPLIANCE_NODE"), host),
	}
	return cfg, nil
}

// short keeps the end of a task id, "test_notejam.4f1c...": all instances
// share what comes before the last dot.
func short(id string) string {
	id = id[strings.LastIndexByte(id, '.')+1:]
	return id[max(0, len(id)-shortInstance):]
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
