package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// shimName is what containerd executes: a link to our own binary.
const shimName = "containerd-shim-runc-v2"

// appletEnv carries the role over the shim's re-execution of itself, which
// resolves the link and so loses argv[0].
const appletEnv = "APPLIANCE_APPLET"

// Applet runs this process as a container's shim, when it was started as one,
// and reports whether it did. Call it first in main and in TestMain: nothing
// may read flags or start goroutines before. It does not return for a shim
// that failed.
func Applet() bool {
	if filepath.Base(os.Args[0]) != shimName && os.Getenv(appletEnv) != shimName {
		return false
	}
	if err := os.Setenv(appletEnv, shimName); err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		os.Exit(1)
	}
	// The daemon's plugins registered themselves when the program was loaded;
	// the shim would start them all.
	registry.Reset()
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTaskService,
	})
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
	return true
}

func newTaskService(ic *plugin.InitContext) (any, error) {
	pub, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	down, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(filepath.Dir(ic.Properties[plugins.PropertyTTRPCAddress]), exitsDir)
	return task.NewTaskService(ic.Context, recorder{pub.(shim.Publisher), dir}, down.(shutdown.Service))
}
