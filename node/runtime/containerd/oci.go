package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"appliance/node/runtime"
	"appliance/node/runtime/containerd/runc"
)

// runcEnv names an OCI runtime, for builds that carry none.
const runcEnv = "APPLIANCE_RUNC"

// ociRuntime is the program that makes containers.
type ociRuntime struct {
	path, version, origin string
	seccomp               bool
}

func (o ociRuntime) String() string {
	if o.path == "" {
		return ""
	}
	return o.version + " (" + o.origin + ")"
}

// findOCIRuntime takes the configured one, the embedded one, $APPLIANCE_RUNC
// or runc on PATH, and asks it for its version: a broken one shows here and
// not at the first task.
func findOCIRuntime(ctx context.Context, cfg Config) (ociRuntime, error) {
	o, err := locate(cfg)
	if err != nil {
		return o, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, o.path, "--version").Output()
	if err != nil {
		return o, &runtime.Error{Kind: runtime.ErrUnavailable, What: "OCI runtime " + o.path, Why: err}
	}
	lines := strings.Split(string(out), "\n")
	o.version = strings.Replace(strings.TrimSpace(lines[0]), " version", "", 1)
	for _, l := range lines {
		if strings.HasPrefix(l, "libseccomp:") {
			o.seccomp = true
		}
	}
	return o, nil
}

func locate(cfg Config) (ociRuntime, error) {
	if cfg.OCIRuntime != "" {
		return ociRuntime{path: cfg.OCIRuntime, origin: "configured"}, nil
	}
	if runc.Embedded() {
		path, err := runc.Unpack(cfg.bin())
		if err != nil {
			return ociRuntime{}, runtime.Fail(nil, err, "embedded OCI runtime")
		}
		return ociRuntime{path: path, origin: "embedded"}, nil
	}
	if path := os.Getenv(runcEnv); path != "" {
		return ociRuntime{path: path, origin: "$" + runcEnv}, nil
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		return ociRuntime{}, &runtime.Error{Kind: runtime.ErrUnavailable, What: "find an OCI runtime",
			Why: fmt.Errorf("this binary carries none and there is no runc on PATH"), Do: "use a release binary, install runc, or set $" + runcEnv}
	}
	return ociRuntime{path: path, origin: path}, nil
}
