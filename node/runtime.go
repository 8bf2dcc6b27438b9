package node

import (
	"context"
	"log/slog"

	"appliance/node/runtime"
	"appliance/node/runtime/backend"
)

// openRuntime chooses and opens the container runtime; the second result says
// why it is this one.
func openRuntime(ctx context.Context, c Config, log *slog.Logger) (runtime.Runtime, string, error) {
	return backend.Choose(ctx, c.Runtime, backend.Config{Node: c.ID, Data: c.Data, Run: c.Run, Log: log})
}
