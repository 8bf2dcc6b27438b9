package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
)

func TestWhyTheNodeStopped(t *testing.T) {
	run, now := filepath.Join(t.TempDir(), "run"), time.Now()
	if got := ReadLastStop(run); got != nil {
		t.Errorf("before the first stop: %+v", got)
	}
	hurt := model.Errorf(model.CodeInternal, "the file is damaged").Try("run appliance recover --resync")
	for _, tc := range []struct {
		name string
		err  error
		what string
		fix  string
	}{
		{"damage, found by a step of the start", fmt.Errorf("log: %w", hurt), "the file is damaged", "recover --resync"},
		{"a part that failed", errors.New("wire: broken"), "it failed: wire: broken", "journalctl"},
	} {
		noteStop(run, tc.err, now)
		got := ReadLastStop(run)
		if got == nil || !got.At.Equal(now) || !strings.HasPrefix(got.Error.Error(), tc.what) || !strings.Contains(got.Error.Fix, tc.fix) {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
	noteStop(run, nil, now)
	if got := ReadLastStop(run); got != nil {
		t.Errorf("after an orderly stop: %+v", got)
	}
	// What a machine that is of no cluster says, too.
	if err := Start(t.Context(), t.TempDir(), run, "v1", "info"); err == nil {
		t.Fatal("it started")
	}
	if got := ReadLastStop(run); got == nil || got.Error.Code != model.CodeNotFound {
		t.Errorf("without a data directory: %+v", got)
	}
}
