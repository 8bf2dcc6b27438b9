package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"appliance/node/runtime"
)

// Pull lets the engine fetch from the host in the reference; engines trust
// 127.0.0.0/8 without TLS. Concurrent pulls share layers in the engine.
func (r *Runtime) Pull(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	name, err := engineRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	po := image.PullOptions{}
	if opts.Username != "" {
		b, err := json.Marshal(map[string]string{"username": opts.Username, "password": opts.Password})
		if err != nil {
			return runtime.Image{}, fmt.Errorf("pull %s: %w", ref, err)
		}
		po.RegistryAuth = base64.URLEncoding.EncodeToString(b)
	}
	rc, err := r.api.ImagePull(ctx, name, po)
	if err == nil {
		err = readProgress(rc, opts.Progress, nil)
		rc.Close()
	}
	if err != nil {
		return runtime.Image{}, pullError(err, ref)
	}
	img, err := r.describe(ctx, name)
	if err != nil {
		return runtime.Image{}, wrap(err, "pull %s", ref)
	}
	return img, nil
}

func pullError(err error, ref string) error {
	msg := err.Error()
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errdefs.IsNotFound(err), strings.Contains(msg, "manifest unknown"), strings.Contains(msg, "not found"):
		return runtime.Fail(runtime.ErrImageNotFound, err, "pull %s", ref)
	case strings.Contains(msg, "connection refused"), strings.Contains(msg, "no such host"), strings.Contains(msg, "i/o timeout"):
		return &runtime.Error{Kind: runtime.ErrUnavailable, What: "pull " + ref, Why: err, Do: "check that the registry answers"}
	case strings.Contains(msg, "no space left"):
		return runtime.Fail(runtime.ErrNoSpace, err, "pull %s", ref)
	}
	return wrap(err, "pull %s", ref)
}

// message is one line of a pull's or load's answer.
type message struct {
	ID             string `json:"id"`
	Stream         string `json:"stream"`
	Error          string `json:"error"`
	ProgressDetail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
}

// readProgress reads an answer to its end, where its error is.
func readProgress(rc io.Reader, report func(runtime.Progress), each func(message)) error {
	layers := map[string]runtime.Progress{}
	for dec := json.NewDecoder(rc); ; {
		var m message
		if err := dec.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if each != nil {
			each(m)
		}
		if report == nil {
			continue
		}
		if m.ProgressDetail.Total > 0 {
			layers[m.ID] = runtime.Progress{Done: m.ProgressDetail.Current, Total: m.ProgressDetail.Total}
		}
		var sum runtime.Progress
		for _, l := range layers {
			sum.Done, sum.Total = sum.Done+l.Done, sum.Total+l.Total
		}
		report(sum)
	}
}

// Import loads a `docker save` tar; engines before 25 take no OCI layout.
func (r *Runtime) Import(ctx context.Context, in io.Reader) ([]runtime.Image, error) {
	resp, err := r.api.ImageLoad(ctx, in)
	if err != nil {
		return nil, wrap(err, "import image")
	}
	defer resp.Body.Close()
	var names []string
	err = readProgress(resp.Body, nil, func(m message) {
		for _, prefix := range []string{"Loaded image: ", "Loaded image ID: "} {
			if name, ok := strings.CutPrefix(strings.TrimSpace(m.Stream), prefix); ok {
				names = append(names, name)
			}
		}
	})
	if err != nil {
		return nil, runtime.Fail(nil, err, "import image")
	}
	var out []runtime.Image
	for _, name := range names {
		img, err := r.describe(ctx, name)
		if err != nil {
			return nil, wrap(err, "import image")
		}
		out = append(out, img)
	}
	return out, nil
}

func (r *Runtime) describe(ctx context.Context, name string) (runtime.Image, error) {
	i, err := r.api.ImageInspect(ctx, name)
	if err != nil {
		return runtime.Image{}, err
	}
	out := runtime.Image{Ref: canonical(name), Digest: digest(name, i.RepoDigests, i.ID), Size: i.Size, Created: parseTime(i.Created)}
	if i.Config != nil {
		for port := range i.Config.ExposedPorts {
			out.ExposedPorts = append(out.ExposedPorts, port)
		}
	}
	sort.Strings(out.ExposedPorts)
	return out, nil
}

func canonical(name string) string {
	p, err := runtime.ParseRef(name)
	if err != nil || strings.HasPrefix(name, "sha256:") {
		return name
	}
	return p.String()
}

// digest is the manifest's where the engine knows it for the name's
// repository, else the configuration's.
func digest(name string, repoDigests []string, id string) string {
	repo, d, _ := strings.Cut(name, "@")
	if d != "" {
		return d
	}
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo = repo[:i]
	}
	for _, rd := range repoDigests {
		if r, d, ok := strings.Cut(rd, "@"); ok && canonical(r) == canonical(repo) {
			return d
		}
	}
	return id
}

// Images lists every name of every image.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.api.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, wrap(err, "list images")
	}
	var out []runtime.Image
	for _, s := range list {
		for _, name := range append(s.RepoTags, s.RepoDigests...) {
			if strings.Contains(name, "<none>") {
				continue
			}
			img, err := r.describe(ctx, name)
			if errdefs.IsNotFound(err) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, wrap(err, "list images")
			}
			out = append(out, img)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Ref < out[j].Ref })
	return out, nil
}

// RemoveImage drops one name.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	name, err := engineRef(ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = r.api.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return wrap(err, "remove image %s", ref)
}
