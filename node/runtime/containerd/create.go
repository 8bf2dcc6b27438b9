package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	runcopts "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/signal"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// What we keep in the container record: the spec as an extension, since
// labels are limited to 4 KB, the boot it was made in, the run directory that
// was there then, and its stop signal.
const (
	extSpec   = runtime.LabelPrefix + "spec"
	labelBoot = runtime.LabelPrefix + "boot"
	labelRun  = runtime.LabelPrefix + "run"
	labelStop = runtime.LabelPrefix + "stop"
)

func init() {
	// Not a protobuf message: typeurl keeps it as JSON.
	typeurl.Register(&runtime.ContainerSpec{}, "appliance", "runtime", "ContainerSpec", "v1")
}

// Create makes the network, the snapshot and the container record, in this
// order, so that List never shows a half-made container.
func (r *Runtime) Create(ctx context.Context, spec runtime.ContainerSpec) (err error) {
	if err := spec.Validate(); err != nil {
		return err
	}
	defer r.locks.lock(spec.ID)()
	ctx = r.ctx(ctx)
	if done, err := r.exists(ctx, spec); done || err != nil {
		return err
	}
	img, err := r.image(ctx, spec.Image)
	if err != nil {
		return err
	}
	if err := unpack(ctx, img, r.snapshotter); err != nil {
		return runtime.Fail(nil, err, "create container %s: unpack %s", spec.ID, spec.Image)
	}
	if spec.LogDir != "" {
		if err := logs.Prepare(spec.LogDir); err != nil {
			return runtime.Fail(nil, err, "create container %s", spec.ID)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard(context.WithoutCancel(ctx), spec.ID))
		}
	}()
	if err := forgetExit(r.cfg.exits(), spec.ID); err != nil { // of a namesake whose removal was cut short
		return runtime.Fail(nil, err, "create container %s", spec.ID)
	}
	netns := ""
	if spec.NetworkOrDefault() == runtime.NetworkBridge {
		att, err := r.net.Attach(spec.ID, spec.Ports)
		if err != nil {
			return err
		}
		netns = att.Netns
	}
	return r.newContainer(ctx, spec, img, netns)
}

func (r *Runtime) exists(ctx context.Context, spec runtime.ContainerSpec) (bool, error) {
	info, err := r.client.ContainerService().Get(ctx, spec.ID)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, wrap(err, "create container %s", spec.ID)
	}
	if old, err := specOf(info); err == nil && old.Hash() == spec.Hash() {
		return true, nil
	}
	return false, runtime.Fail(runtime.ErrConflict, nil, "create container %s", spec.ID)
}

// specOf reads the spec back from a container record.
func specOf(info containers.Container) (runtime.ContainerSpec, error) {
	var spec runtime.ContainerSpec
	ext, ok := info.Extensions[extSpec]
	if !ok {
		return spec, fmt.Errorf("container %s: not made by us", info.ID)
	}
	if err := json.Unmarshal(ext.GetValue(), &spec); err != nil {
		return spec, fmt.Errorf("container %s: read its spec: %w", info.ID, err)
	}
	return spec, nil
}

func (r *Runtime) newContainer(ctx context.Context, spec runtime.ContainerSpec, img client.Image, netns string) error {
	stop := spec.StopSignal
	if stop == 0 {
		stop = imageStopSignal(ctx, img)
	}
	opts, err := r.specOpts(spec, img, netns)
	if err != nil {
		return err
	}
	rt := client.WithRuntime("io.containerd.runc.v2", nil)
	if r.cfg.embedded() {
		rt = client.WithRuntime(r.cfg.shimLink(), &runcopts.Options{BinaryName: r.oci.path, Root: r.cfg.runc()})
	}
	ctx, done, err := r.client.WithLease(ctx)
	if err != nil {
		return wrap(err, "create container %s", spec.ID)
	}
	defer done(context.WithoutCancel(ctx))
	_, err = r.client.NewContainer(ctx, spec.ID,
		client.WithImage(img), client.WithSnapshotter(r.snapshotter), client.WithNewSnapshot(spec.ID, img),
		client.WithContainerLabels(map[string]string{labelBoot: r.bootID, labelRun: r.runID, labelStop: strconv.Itoa(int(stop))}),
		client.WithContainerExtension(extSpec, &spec),
		rt, client.WithNewSpec(opts...))
	return wrap(err, "create container %s", spec.ID)
}

func unpack(ctx context.Context, img client.Image, snapshotter string) error {
	ok, err := img.IsUnpacked(ctx, snapshotter)
	if err != nil || ok {
		return err
	}
	return img.Unpack(ctx, snapshotter)
}

// discard undoes a failed or finished Create; everything is optional.
func (r *Runtime) discard(ctx context.Context, id string) error {
	var errs []error
	if c, err := r.client.LoadContainer(ctx, id); err == nil {
		errs = append(errs, ignoreNotFound(c.Delete(ctx, client.WithSnapshotCleanup)))
	} else if errdefs.IsNotFound(err) {
		errs = append(errs, ignoreNotFound(r.client.SnapshotService(r.snapshotter).Remove(ctx, id)))
	} else {
		errs = append(errs, err)
	}
	errs = append(errs, r.net.Detach(id), r.removeFiles(id), forgetExit(r.cfg.exits(), id))
	return errors.Join(errs...)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func imageStopSignal(ctx context.Context, img client.Image) runtime.Signal {
	conf, err := img.Spec(ctx)
	if err != nil || strings.TrimSpace(conf.Config.StopSignal) == "" {
		return syscall.SIGTERM
	}
	sig, err := signal.ParseSignal(conf.Config.StopSignal)
	if err != nil {
		return syscall.SIGTERM
	}
	return sig
}
