package raft

import (
	"bytes"
	"context"
	"log/slog"
	"strings"

	hclog "github.com/hashicorp/go-hclog"
)

// newHCLog carries the messages of hashicorp's packages, level WARN and up, to slog. Their INFO lines
// tell what lead.go logs already.
func newHCLog(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Warn, DisableTime: true, Output: lineWriter{log},
	})
}

type lineWriter struct{ log *slog.Logger }

// Write receives one line: "[WARN]  raft: text: key=value".
func (w lineWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("use of closed network connection")) {
		return len(b), nil // this node is stopping
	}
	level, text, ok := strings.Cut(string(bytes.TrimSpace(b)), "]")
	if !ok {
		level, text = "", level
	}
	lv := slog.LevelWarn
	if strings.Contains(level, "ERROR") {
		lv = slog.LevelError
	}
	w.log.Log(context.Background(), lv, strings.TrimSpace(text))
	return len(b), nil
}
