package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"appliance/node/runtime"
)

// cfsPeriod is the length of the CPU limit's accounting, in microseconds:
// the kernel's default.
const cfsPeriod = 100_000

// maxFiles is the limit on open files, where the node allows as many.
const maxFiles = 1 << 20

// specOpts builds the OCI spec. Security is containerd's default set, which
// is Docker's: 14 capabilities, no_new_privs, masked and read-only paths,
// device list; seccomp and the bound on processes are added here.
func (r *Runtime) specOpts(spec runtime.ContainerSpec, img client.Image, netns string) ([]oci.SpecOpts, error) {
	opts := []oci.SpecOpts{oci.WithoutRunMount}
	if len(spec.Entrypoint) > 0 {
		opts = append(opts, oci.WithImageConfig(img),
			oci.WithProcessArgs(append(append([]string(nil), spec.Entrypoint...), spec.Args...)...))
	} else {
		opts = append(opts, oci.WithImageConfigArgs(img, spec.Args))
	}
	if len(spec.Wrap) > 0 {
		opts = append(opts, func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
			s.Process.Args = append(slices.Clone(spec.Wrap), s.Process.Args...)
			return nil
		})
	}
	opts = append(opts, oci.WithEnv(spec.Env), oci.WithCgroup(filepath.Join(r.cfg.cgroup(), spec.ID)),
		oci.WithRlimit(fileLimit()))
	if spec.WorkDir != "" {
		opts = append(opts, oci.WithProcessCwd(spec.WorkDir))
	}
	if spec.User != "" {
		opts = append(opts, oci.WithUser(spec.User), oci.WithAdditionalGIDs(spec.User))
	}
	if spec.ReadOnlyRootFS {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	opts = append(opts, networkOpts(spec, netns)...)
	mounts, err := r.mounts(spec)
	if err != nil {
		return nil, err
	}
	opts = append(opts, oci.WithMounts(mounts), withResources(spec.Resources))
	if spec.Privileged {
		return append(opts, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices, oci.WithNewPrivileges), nil
	}
	if !r.cfg.embedded() || r.oci.seccomp {
		opts = append(opts, seccomp.WithDefaultProfile()) // after the capabilities, which it reads
	}
	return opts, nil
}

func networkOpts(spec runtime.ContainerSpec, netns string) []oci.SpecOpts {
	hostname := spec.Hostname
	var opts []oci.SpecOpts
	switch spec.NetworkOrDefault() {
	case runtime.NetworkHost:
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
		if hostname == "" {
			hostname, _ = os.Hostname()
		}
	case runtime.NetworkBridge:
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: netns}))
	}
	if hostname == "" {
		hostname = spec.ID[:min(len(spec.ID), 63)] // the kernel's limit is 64
	}
	return append(opts, oci.WithHostname(hostname))
}

func (r *Runtime) mounts(spec runtime.ContainerSpec) ([]specs.Mount, error) {
	var out []specs.Mount
	files, err := r.writeFiles(spec)
	if err != nil {
		return nil, err
	}
	for _, m := range append(files, spec.Mounts...) {
		if _, err := os.Stat(m.Source); err != nil {
			return nil, &runtime.Error{Kind: runtime.ErrInvalid, What: "mount " + m.Source + " at " + m.Destination, Why: err, Do: "create it on the node first"}
		}
		// rslave: a volume mounted later under the source shows up inside.
		options := []string{"rbind", "rslave", "rw"}
		if m.ReadOnly {
			options[2] = "ro"
		}
		out = append(out, specs.Mount{Type: "bind", Source: m.Source, Destination: m.Destination, Options: options})
	}
	return out, nil
}

func fileLimit() *specs.POSIXRlimit {
	limit := uint64(maxFiles)
	var own unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &own) == nil {
		limit = min(limit, own.Max)
	}
	return &specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Hard: limit, Soft: limit}
}

// linuxResources translates limits; the same for create and update.
func linuxResources(res runtime.Resources) *specs.LinuxResources {
	pids := res.PidsOrDefault()
	out := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{}}
	shares := uint64(1024) // one core's worth, the kernel's default
	if res.CPUs > 0 {
		shares = max(2, uint64(res.CPUs*1024))
	}
	quota, period := int64(-1), uint64(cfsPeriod)
	if res.CPULimit > 0 {
		quota = max(1000, int64(res.CPULimit*cfsPeriod)) // the kernel's minimum
	}
	out.CPU.Shares, out.CPU.Quota, out.CPU.Period = &shares, &quota, &period
	if res.MemoryBytes > 0 {
		limit := res.MemoryBytes
		out.Memory = &specs.LinuxMemory{Limit: &limit}
		if swapAccounting() {
			out.Memory.Swap = &limit // memory and swap together: no swap
		}
	}
	return out
}

// writeFiles makes /etc/hosts, /etc/resolv.conf and /etc/hostname and returns
// their mounts. What the spec mounts itself is left out.
func (r *Runtime) writeFiles(spec runtime.ContainerSpec) ([]runtime.Mount, error) {
	dir := filepath.Join(r.cfg.files(), spec.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, runtime.Fail(nil, err, "make files of container %s", spec.ID)
	}
	taken := map[string]bool{}
	for _, m := range spec.Mounts {
		taken[filepath.Clean(m.Destination)] = true
	}
	att, _ := r.net.Lookup(spec.ID)
	var mounts []runtime.Mount
	for name, content := range etcFiles(spec, att.IP, att.Gateway) {
		dst := "/etc/" + name
		if taken[dst] {
			continue
		}
		src := filepath.Join(dir, name)
		if err := os.WriteFile(src, []byte(content), 0o644); err != nil {
			return nil, runtime.Fail(nil, err, "write %s of container %s", dst, spec.ID)
		}
		mounts = append(mounts, runtime.Mount{Source: src, Destination: dst})
	}
	return mounts, nil
}

func (r *Runtime) removeFiles(id string) error {
	if err := os.RemoveAll(filepath.Join(r.cfg.files(), id)); err != nil {
		return fmt.Errorf("remove files of container %s: %w", id, err)
	}
	return nil
}
