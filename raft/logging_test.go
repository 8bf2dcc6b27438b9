package raft

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestRepeatedComplaintsAreLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	log := newHCLog(slog.New(slog.NewTextHandler(&out, nil)))
	for range 5 {
		log.Error("failed to heartbeat to", "peer", "10.0.0.1:7600")
		log.Warn("something else", "n", 1)
	}
	log.Info("chatter")
	if got := strings.Count(out.String(), "\n"); got != 2 || !strings.Contains(out.String(), "peer=10.0.0.1") {
		t.Errorf("%d lines:\n%s", got, out.String())
	}
}
