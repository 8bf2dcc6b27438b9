package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"appliance/node/runtime"
)

// Pull fetches by opts.Endpoint when given, else from the reference's host.
// containerd's content store makes concurrent pulls share blobs.
func (r *Runtime) Pull(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	name, err := runtime.ParseRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	ctx = r.ctx(ctx)
	meter := &meter{report: opts.Progress}
	img, err := r.client.Pull(ctx, name.String(),
		client.WithResolver(resolver(name, opts, meter)),
		client.WithPullUnpack, client.WithPullSnapshotter(r.snapshotter),
		client.WithImageHandlerWrapper(meter.wrap))
	if err != nil {
		return runtime.Image{}, pullError(err, ref)
	}
	meter.finish()
	return r.describe(ctx, img)
}

func resolver(name runtime.Ref, opts runtime.PullOptions, m *meter) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) {
		host := name.Host
		switch {
		case opts.Endpoint != "":
			host = opts.Endpoint
		case host == "docker.io":
			host = "registry-1.docker.io"
		}
		scheme := "https"
		if loop, err := docker.MatchLocalhost(host); err == nil && loop {
			scheme = "http"
		}
		c := &http.Client{Transport: docker.DefaultHTTPTransport(nil)}
		if opts.Client != nil {
			copied := *opts.Client
			c = &copied
		}
		c.Transport = countingTransport{c.Transport, m}
		auth := docker.NewDockerAuthorizer(docker.WithAuthClient(c), docker.WithAuthCreds(func(string) (string, string, error) {
			return opts.Username, opts.Password, nil
		}))
		return []docker.RegistryHost{{Client: c, Authorizer: auth, Host: host, Scheme: scheme, Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve}}, nil
	}})
}

func pullError(err error, ref string) error {
	var netErr net.Error
	switch {
	case errdefs.IsNotFound(err):
		return runtime.Fail(runtime.ErrImageNotFound, nil, "pull %s", ref)
	case errors.As(err, &netErr):
		return &runtime.Error{Kind: runtime.ErrUnavailable, What: "pull " + ref, Why: err, Do: "check that the registry answers"}
	}
	return runtime.Fail(nil, err, "pull %s", ref)
}

// meter counts a pull's bytes.
type meter struct {
	report      func(runtime.Progress)
	done, total atomic.Int64
	last        atomic.Int64 // unix nanoseconds of the last report
}

// reportEvery keeps progress from costing more than the pull.
const reportEvery = 100 * time.Millisecond

func (m *meter) add(done, total int64) {
	d, t := m.done.Add(done), m.total.Add(total)
	if m.report == nil {
		return
	}
	last, now := m.last.Load(), time.Now().UnixNano()
	if now-last > int64(reportEvery) && m.last.CompareAndSwap(last, now) {
		m.report(runtime.Progress{Done: min(d, t), Total: t})
	}
}

func (m *meter) finish() {
	if m.report != nil {
		m.report(runtime.Progress{Done: m.total.Load(), Total: m.total.Load()})
	}
}

func (m *meter) wrap(h images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		m.add(0, desc.Size)
		return h.Handle(ctx, desc)
	})
}

type countingTransport struct {
	next http.RoundTripper
	m    *meter
}

func (t countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(req)
	if err == nil {
		resp.Body = countingBody{resp.Body, t.m}
	}
	return resp, err
}

type countingBody struct {
	io.ReadCloser
	m *meter
}

func (b countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.add(int64(n), 0)
	return n, err
}

// Import loads a tar stream and unpacks its images.
func (r *Runtime) Import(ctx context.Context, in io.Reader) ([]runtime.Image, error) {
	ctx = r.ctx(ctx)
	var nameless []string
	list, err := r.client.Import(ctx, in,
		client.WithDigestRef(func(d digest.Digest) string {
			// An OCI layout may carry no name; by digest it can be run.
			ref := "import.local/image@" + d.String()
			nameless = append(nameless, ref)
			return ref
		}),
		client.WithSkipDigestRef(func(name string) bool { return strings.Contains(name, "/") }))
	if err != nil {
		return nil, runtime.Fail(nil, err, "import image")
	}
	var out []runtime.Image
	for _, i := range list {
		img := client.NewImage(r.client, i)
		if _, err := runtime.ParseRef(i.Name); err != nil || !strings.Contains(i.Name, "/") {
			// A bare tag of an OCI layout: the digest name stands for it.
			if err := r.client.ImageService().Delete(ctx, i.Name); err != nil {
				return nil, runtime.Fail(nil, err, "import image %s", i.Name)
			}
			continue
		}
		if err := img.Unpack(ctx, r.snapshotter); err != nil {
			return nil, runtime.Fail(nil, err, "unpack image %s", i.Name)
		}
		desc, err := r.describe(ctx, img)
		if err != nil {
			return nil, err
		}
		out = append(out, desc)
	}
	return out, nil
}

// Images lists by reference.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	ctx = r.ctx(ctx)
	list, err := r.client.ListImages(ctx)
	if err != nil {
		return nil, wrap(err, "list images")
	}
	var out []runtime.Image
	for _, img := range list {
		desc, err := r.describe(ctx, img)
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile, or for another platform
		}
		if err != nil {
			return nil, err
		}
		out = append(out, desc)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Ref < out[j].Ref })
	return out, nil
}

// RemoveImage drops the name and collects the garbage at once.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	name, err := runtime.ParseRef(ref)
	if err != nil {
		return err
	}
	err = r.client.ImageService().Delete(r.ctx(ctx), name.String(), images.SynchronousDelete())
	if err != nil && !errdefs.IsNotFound(err) {
		return wrap(err, "remove image %s", ref)
	}
	return nil
}

func (r *Runtime) describe(ctx context.Context, img client.Image) (runtime.Image, error) {
	out := runtime.Image{Ref: img.Name(), Digest: img.Target().Digest.String(), Created: img.Metadata().CreatedAt}
	size, err := img.Size(ctx)
	if err != nil {
		return out, fmt.Errorf("read image %s: %w", img.Name(), err)
	}
	out.Size = size
	conf, err := img.Spec(ctx)
	if err != nil {
		return out, fmt.Errorf("read image %s: %w", img.Name(), err)
	}
	for port := range conf.Config.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, port)
	}
	sort.Strings(out.ExposedPorts)
	return out, nil
}

// image finds a spec's image: by name, else by digest under any name, since
// equal digests are equal bits.
func (r *Runtime) image(ctx context.Context, ref string) (client.Image, error) {
	name, err := runtime.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	img, err := r.client.GetImage(ctx, name.String())
	if errdefs.IsNotFound(err) && name.Digest != "" {
		list, lerr := r.client.ListImages(ctx, "target.digest=="+name.Digest)
		if lerr == nil && len(list) > 0 {
			return list[0], nil
		}
	}
	if errdefs.IsNotFound(err) {
		return nil, &runtime.Error{Kind: runtime.ErrImageNotFound, What: ref, Do: "pull or import it first"}
	}
	if err != nil {
		return nil, wrap(err, "find image %s", ref)
	}
	return img, nil
}
