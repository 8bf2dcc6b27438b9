package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
	"appliance/node/runtime/network"
)

// Create makes the container. The engine itself keeps a failed create from
// leaving anything.
func (r *Runtime) Create(ctx context.Context, spec runtime.ContainerSpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if done, err := r.exists(ctx, spec); done || err != nil {
		return err
	}
	if r.local() {
		if err := network.CheckPorts(spec.ID, spec.Ports); err != nil {
			return err
		}
		for _, m := range spec.Mounts {
			if _, err := os.Stat(m.Source); err != nil {
				return &runtime.Error{Kind: runtime.ErrInvalid, What: "mount " + m.Source + " at " + m.Destination, Why: err, Do: "create it on the node first"}
			}
		}
	}
	if spec.LogDir != "" {
		if err := logs.Prepare(spec.LogDir); err != nil {
			return runtime.Fail(nil, err, "create container %s", spec.ID)
		}
	}
	conf, host, err := r.translate(spec)
	if err != nil {
		return err
	}
	if err := r.wrap(ctx, spec, conf); err != nil {
		return err
	}
	_, err = r.api.ContainerCreate(ctx, conf, host, nil, nil, spec.ID)
	switch {
	case errdefs.IsNotFound(err):
		return &runtime.Error{Kind: runtime.ErrImageNotFound, What: "create container " + spec.ID + ": " + spec.Image, Do: "pull or import it first"}
	case errdefs.IsConflict(err): // made meanwhile
		_, err := r.exists(ctx, spec)
		return err
	}
	return wrap(err, "create container %s", spec.ID)
}

// local reports whether the engine sees this machine's files and ports.
func (r *Runtime) local() bool { return strings.HasPrefix(r.api.DaemonHost(), "unix:") }

func (r *Runtime) exists(ctx context.Context, spec runtime.ContainerSpec) (bool, error) {
	old, _, err := r.inspect(ctx, spec.ID)
	if errors.Is(err, runtime.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if old.Hash() == spec.Hash() {
		return true, nil
	}
	return false, runtime.Fail(runtime.ErrConflict, nil, "create container %s", spec.ID)
}

func (r *Runtime) translate(spec runtime.ContainerSpec) (*container.Config, *container.HostConfig, error) {
	specJSON, err := json.Marshal(spec)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", spec.ID, err)
	}
	image, err := engineRef(spec.Image)
	if err != nil {
		return nil, nil, err
	}
	labels := map[string]string{labelNode: r.cfg.Node, labelSpec: string(specJSON)}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	conf := &container.Config{
		Image: image, Entrypoint: spec.Entrypoint, Cmd: spec.Args, Env: spec.Env, Labels: labels,
		WorkingDir: spec.WorkDir, User: spec.User, Hostname: spec.Hostname, ExposedPorts: nat.PortSet{},
	}
	if spec.StopSignal != 0 {
		conf.StopSignal = strconv.Itoa(int(spec.StopSignal))
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(spec.NetworkOrDefault()), PortBindings: nat.PortMap{},
		DNS: spec.Nameservers, DNSSearch: spec.Search, DNSOptions: spec.DNSOptions,
		Privileged: spec.Privileged, ReadonlyRootfs: spec.ReadOnlyRootFS,
		Resources: resources(spec.Resources),
		// The engine's own copy is short: the plain files are the record.
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "2"}},
	}
	if !spec.Privileged {
		host.SecurityOpt = []string{"no-new-privileges"}
	}
	for _, h := range spec.ExtraHosts {
		for _, name := range h.Names {
			host.ExtraHosts = append(host.ExtraHosts, name+":"+h.IP)
		}
	}
	for _, m := range spec.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Destination, ReadOnly: m.ReadOnly})
	}
	for _, p := range spec.Ports {
		port := nat.Port(fmt.Sprintf("%d/%s", p.ContainerPort, p.ProtocolOrDefault()))
		conf.ExposedPorts[port] = struct{}{}
		host.PortBindings[port] = append(host.PortBindings[port], nat.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
	}
	return conf, host, nil
}

// wrap puts spec.Wrap before the image's or the spec's own process.
func (r *Runtime) wrap(ctx context.Context, spec runtime.ContainerSpec, conf *container.Config) error {
	if len(spec.Wrap) == 0 {
		return nil
	}
	if len(conf.Entrypoint) == 0 {
		img, err := r.api.ImageInspect(ctx, conf.Image)
		if err != nil {
			return wrap(err, "create container %s", spec.ID)
		}
		if img.Config != nil {
			conf.Entrypoint = slices.Clone(img.Config.Entrypoint)
			if len(conf.Cmd) == 0 {
				conf.Cmd = img.Config.Cmd
			}
		}
	}
	conf.Entrypoint = append(slices.Clone(spec.Wrap), conf.Entrypoint...)
	return nil
}

// resources translates limits, for create and update.
func resources(res runtime.Resources) container.Resources {
	pids := res.PidsOrDefault()
	out := container.Resources{PidsLimit: &pids, NanoCPUs: int64(res.CPULimit * 1e9), Memory: res.MemoryBytes, MemorySwap: res.MemoryBytes}
	if res.CPUs > 0 {
		out.CPUShares = max(2, int64(res.CPUs*1024))
	}
	return out
}

// engineRef is the reference as engines accept it: the digest decides, and
// old ones refuse a tag beside it.
func engineRef(ref string) (string, error) {
	p, err := runtime.ParseRef(ref)
	if err != nil {
		return "", err
	}
	if p.Digest != "" {
		p.Tag = ""
	}
	return p.String(), nil
}

// startError recognises what the engine says in words only.
func startError(err error, id string) error {
	if err == nil {
		return nil
	}
	msg := err.Error()
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(msg, w) })
	}
	switch {
	case has("port is already allocated", "address already in use"):
		return runtime.Fail(runtime.ErrPortInUse, err, "start container %s", id)
	case has("executable file not found", "exec format error") || has("exec:") && has("no such file or directory", "permission denied"):
		return runtime.Fail(runtime.ErrCommand, err, "start container %s", id)
	case has("no space left on device"):
		return runtime.Fail(runtime.ErrNoSpace, err, "start container %s", id)
	}
	return wrap(err, "start container %s", id)
}
