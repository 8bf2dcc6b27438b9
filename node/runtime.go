package node

import (
	"context"
	"log/slog"

	"appliance/node/runtime"
	"appliance/node/runtime/containerd"
)

// openRuntime chooses and opens the container runtime.
func openRuntime(ctx context.Context, c Config, log *slog.Logger) (runtime.Runtime, string, error) {
	rt, err := containerd.Open(ctx, containerd.Config{Node: c.ID, Root: c.dir("runtime"), Run: c.Run, Log: log})
	return rt, "embedded", err
}
