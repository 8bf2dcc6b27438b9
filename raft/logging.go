package raft

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
)

// newHCLog carries the messages of hashicorp's packages, level WARN and up, to slog. Their INFO lines
// tell what lead.go logs already.
func newHCLog(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Warn, DisableTime: true, Output: &lineWriter{log: log, last: map[string]time.Time{}},
	})
}

const (
	// logPause keeps a dead master from filling the log of the others: they complain of every attempt
	// to reach it. Repetitions within it are logged at level debug.
	logPause = 30 * time.Second
	logKinds = 64 // kinds of messages remembered
)

type lineWriter struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

// Write receives one line: "[WARN]  raft: text: key=value".
func (w *lineWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("use of closed network connection")) {
		return len(b), nil // this node is stopping
	}
	_, text, ok := strings.Cut(string(bytes.TrimSpace(b)), "]")
	if !ok {
		text = string(b)
	}
	text = strings.TrimSpace(text)
	level := slog.LevelWarn // also for their ERROR: an unreachable peer is no fault of this node
	if w.repeated(text, time.Now()) {
		level = slog.LevelDebug
	}
	w.log.Log(context.Background(), level, text)
	return len(b), nil
}

// repeated reports whether a message of the same kind, that is the text before its values, came lately.
func (w *lineWriter) repeated(text string, now time.Time) bool {
	kind, _, _ := strings.Cut(text, "=")
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last[kind]) < logPause {
		return true
	}
	if len(w.last) >= logKinds {
		clear(w.last)
	}
	w.last[kind] = now
	return false
}
