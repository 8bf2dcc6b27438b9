package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/registry"
	"appliance/registry/build"
	"appliance/registry/client"

	"github.com/spf13/cobra"
)

// built is the answer of build.
type built struct {
	Image  string `json:"image"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // of the manifest's layers
	Pushed bool   `json:"pushed"`
}

// buildFlags are the choices of one build.
type buildFlags struct {
	file, tag, output, registry string
	noPush                      bool
}

func (a *app) buildCmd() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build an image without Docker and push it to the cluster's registry",
		Long: `Build an image without Docker and push it to the cluster's registry.

DIR holds an app file (appliance.yaml), which says what the image is made of
and how the app runs:

  name: notejam
  build:
    files: {../../bin/notejam: /notejam}
    entrypoint: [/notejam]
  app:
    instances: 3
    resources: {cpus: 0.1, mem: 128}
    ports: [{name: http, containerPort: 8000}]
    checks: [{type: http, path: /healthz}]
    volumes: [{name: "notejam-{env}", path: /data}]
    routes: [{host: "app-{env}"}]

The app part travels inside the image, so that "appliance deploy NAME" needs no
file. The same input gives the same digest on every machine.`,
		Example: "  appliance build cmd/notejam\n  appliance build --no-push --output /tmp/notejam-image cmd/notejam",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return a.build(cmd.Context(), dir, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "appliance.yaml", "app file, relative to DIR")
	fl.StringVarP(&f.tag, "tag", "t", "latest", "tag of the image")
	fl.StringVarP(&f.output, "output", "o", "", "keep the image as an OCI layout in this directory")
	fl.StringVar(&f.registry, "registry", "http://127.0.0.1:5000", "registry to push to")
	fl.BoolVar(&f.noPush, "no-push", false, "build only")
	return cmd
}

func (a *app) build(ctx context.Context, dir string, f buildFlags) error {
	file, err := loadAppFile(filepath.Join(dir, f.file))
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	out := f.output
	if out == "" {
		tmp, err := os.MkdirTemp("", "appliance-build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		out = filepath.Join(tmp, "image")
	}
	layout, err := build.CreateLayout(out)
	if err != nil {
		return err
	}
	reg := &client.Client{Base: f.registry, HTTP: &http.Client{}}
	spec, err := imageSpec(file, dir, reg)
	if err != nil {
		return err
	}
	root, err := build.Build(ctx, spec, layout)
	if err != nil {
		return model.Errorf(model.CodeInvalid, "the image of %s cannot be built", file.Name).Because("%v", err)
	}
	if err := layout.Tag(f.tag, root); err != nil {
		return err
	}
	res := built{Image: file.Name + ":" + f.tag, Digest: string(root.Digest)}
	if !f.noPush {
		if err := a.push(ctx, reg, layout, root, file.Name, f.tag); err != nil {
			return err
		}
		res.Pushed = true
	}
	return a.show(res, func(p *ui.Printer) {
		verb := "built"
		if res.Pushed {
			verb = "built and pushed"
		}
		p.Line("%s %s %s", verb, res.Image, res.Digest)
	})
}

// imageSpec turns the app file into what the builder takes. The app part goes
// into a label.
func imageSpec(f *appFile, dir string, reg *client.Client) (build.Spec, error) {
	b := f.Build
	spec := build.Spec{Context: dir, Config: build.Config{User: b.User, Entrypoint: b.Entrypoint, Cmd: b.Cmd,
		WorkingDir: b.WorkDir, Ports: b.Ports, Labels: map[string]string{}}}
	from := b.From
	if b.Dockerfile != "" {
		text, err := readLimited(filepath.Join(dir, b.Dockerfile))
		if err != nil {
			return spec, err
		}
		parsed, err := build.ParseDockerfile(string(text))
		if err != nil {
			return spec, model.Errorf(model.CodeInvalid, "%s cannot be used", b.Dockerfile).Because("%v", err)
		}
		spec, from = parsed.Spec, parsed.From
		spec.Context = dir
		if spec.Config.Labels == nil {
			spec.Config.Labels = map[string]string{}
		}
	}
	sources := make([]string, 0, len(b.Files))
	for src := range b.Files {
		sources = append(sources, src)
	}
	sort.Strings(sources)
	root, err := commonRoot(dir, sources)
	if err != nil {
		return spec, err
	}
	for _, src := range sources {
		rel, err := filepath.Rel(root, filepath.Join(dir, src))
		if err != nil {
			return spec, err
		}
		spec.Context = root
		spec.Copies = append(spec.Copies, build.Copy{Sources: []string{rel}, To: b.Files[src]})
	}
	for k, v := range b.Env {
		spec.Config.Env = append(spec.Config.Env, k+"="+v)
	}
	slices.Sort(spec.Config.Env)
	for k, v := range b.Labels {
		spec.Config.Labels[k] = v
	}
	app, err := json.Marshal(f.App)
	if err != nil {
		return spec, err
	}
	spec.Config.Labels[api.SpecLabel] = string(app)
	if from != "" && from != "scratch" {
		repo, tag, _ := strings.Cut(from, ":")
		if tag == "" {
			tag = "latest"
		}
		spec.Base, spec.BaseName = build.RegistryBase(reg, repo, tag), from
	}
	return spec, nil
}

// commonRoot is the deepest directory that contains all sources: an app file
// may name files beside its own directory ("../../bin/notejam").
func commonRoot(dir string, sources []string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, src := range sources {
		full, err := filepath.Abs(filepath.Join(dir, src))
		if err != nil {
			return "", err
		}
		for !strings.HasPrefix(full, strings.TrimSuffix(root, "/")+"/") && root != "/" {
			root = filepath.Dir(root)
		}
	}
	return root, nil
}

// pushTTL is how long the token of one push lives.
const pushTTL = 15 * time.Minute

func (a *app) push(ctx context.Context, reg *client.Client, layout *build.Layout, root registry.Descriptor, repo, tag string) error {
	reg.User, reg.Secret = "token", a.token
	if a.token == "" {
		secret, err := a.pushToken(ctx)
		if err != nil {
			return err
		}
		reg.Secret = secret
	}
	view := ui.NewProgress(a.errOut)
	var order []string
	text := map[string]string{}
	err := reg.Push(ctx, layout, root, repo, tag, func(p client.Progress) {
		key := string(p.Digest)
		if _, seen := text[key]; !seen {
			order = append(order, key)
		}
		state := fmt.Sprintf("%d of %d KiB", p.Sent>>10, p.Size>>10)
		switch {
		case p.Existed:
			state = "was there already"
		case p.Done:
			state = "pushed"
		}
		text[key] = fmt.Sprintf("  %s %s", ui.Short(key), state)
		if a.json || !p.Done && !p.Existed && !a.terminal() {
			return
		}
		var items []ui.Item
		for _, k := range order {
			items = append(items, ui.Item{Key: k, Text: text[k]})
		}
		view.Update(items)
	})
	if err != nil {
		return model.Errorf(model.CodeUnavailable, "%s was built but not pushed", repo).Because("%v", err).
			Try("a majority of the masters must be alive; then run it again: what was pushed is kept")
	}
	return nil
}

// pushToken asks the local node, as root, for a token that may push for a
// while.
func (a *app) pushToken(ctx context.Context) (string, error) {
	c, err := a.client()
	if err != nil {
		return "", err
	}
	var t api.Token
	err = c.Post(ctx, "/tokens/api", api.TokenRequest{Name: "build", Policy: model.Policy{Push: true}, TTL: model.Duration(pushTTL)}, &t)
	return t.Token, err
}

func (a *app) terminal() bool { return ui.IsTerminal(a.errOut) }
