package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"appliance/node/lab"
	"appliance/node/model"
	"appliance/vagrant"

	"go.yaml.in/yaml/v3"
)

// machines starts the lab, on the ruins of an earlier one if there is one.
func (s *Story) machines(ctx context.Context) error {
	if _, err := os.Stat(s.o.Dir); err == nil {
		s.out.line("removing the lab of an earlier run")
		if _, err := s.run(ctx, "lab", "down"); err != nil {
			return err
		}
	}
	args := []string{"lab", "up"}
	if s.o.ClusterFile != "" {
		args = append(args, "--cluster", s.o.ClusterFile)
	}
	if s.o.Name != lab.DefaultName {
		args = append(args, "--name", s.o.Name)
	}
	began := time.Now()
	if _, err := s.run(ctx, args...); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.everybodyReady(ctx); err != nil {
		return err
	}
	if err := s.mark("seven machines from nothing to one cluster", time.Since(began), 0, ""); err != nil {
		return err
	}
	_, err := s.run(ctx, "status")
	return err
}

// everybodyReady waits until every machine calls every machine ready: the
// view of one is not the state of all.
func (s *Story) everybodyReady(ctx context.Context) error {
	return await(ctx, stepTime, func(ctx context.Context) error {
		for _, m := range s.cluster.Machines {
			st, err := s.status(ctx, m.Name)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			ready := 0
			for _, n := range st.Nodes {
				if n.Status == model.NodeReady && n.Alive && !n.Drain {
					ready++
				}
			}
			if ready != len(s.cluster.Machines) || len(st.Nodes) != ready {
				return fmt.Errorf("%s sees %d of %d machines ready", m.Name, ready, len(s.cluster.Machines))
			}
			if !st.Fresh || st.Leader == "" {
				return fmt.Errorf("%s is out of touch with the masters", m.Name)
			}
			if m.Role == vagrant.RoleMaster && s.cluster.VIP.IsValid() && st.VIPNode == "" {
				return fmt.Errorf("%s does not know who holds %s", m.Name, s.cluster.VIP)
			}
		}
		return nil
	})
}

// image builds Notejam twice and wants the same digest.
func (s *Story) image(ctx context.Context) error {
	dir, err := s.carry(ctx)
	if err != nil {
		return err
	}
	first := s.cluster.Masters()[0].Name
	began := time.Now()
	if _, err := s.run(ctx, "lab", "exec", first, "appliance", "build", dir); err != nil {
		return err
	}
	if err := s.mark("image built and on the disks of the masters", time.Since(began), 0, ""); err != nil {
		return err
	}
	var digests [2]string
	for i := range digests {
		// A second layout and a second push: nothing is remembered in between.
		out, err := s.Command(ctx, "lab", "exec", first, "appliance", "build", "--json", dir)
		var built struct{ Digest string }
		if err == nil && out.Code != 0 {
			err = fmt.Errorf("build: exit code %d: %s", out.Code, out.Stderr)
		}
		if err == nil {
			err = json.Unmarshal([]byte(out.Stdout), &built)
		}
		if err != nil {
			return err
		}
		digests[i] = built.Digest
	}
	if digests[0] != digests[1] || !strings.HasPrefix(digests[0], "sha256:") {
		return fmt.Errorf("the same input gave two images: %s and %s", digests[0], digests[1])
	}
	s.digest = digests[0]
	s.out.ok("built again: the same digest %s", s.digest)
	_, err = s.run(ctx, "images")
	return err
}

// carry makes sure that the machines see the app's directory. They see the
// host's root, but nothing of /tmp, /run and of what is mounted elsewhere.
func (s *Story) carry(ctx context.Context) (string, error) {
	first := s.cluster.Masters()[0].Name
	if _, err := s.lab.Output(ctx, first, "test", "-e", filepath.Join(s.o.App, "appliance.yaml")); err == nil {
		return s.o.App, nil
	}
	files, err := buildFiles(filepath.Join(s.o.App, "appliance.yaml"))
	if err != nil {
		return "", err
	}
	const project = "/srv/project"
	dir := filepath.Join(project, "cmd", filepath.Base(s.o.App))
	for _, f := range append(files, "appliance.yaml") {
		if err := s.lab.Put(ctx, first, filepath.Join(s.o.App, f), filepath.Join(dir, f), "755"); err != nil {
			return "", fmt.Errorf("give %s to %s: %w", f, first, err)
		}
	}
	s.out.line("(%s cannot see %s: its files were copied to %s)", first, s.o.App, dir)
	return dir, nil
}

// buildFiles are the sources that an app file names.
func buildFiles(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f struct {
		Build struct{ Files map[string]string }
	}
	if err := yaml.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var files []string
	for src := range f.Build.Files {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), src)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not there: build it first: make build", filepath.Join(filepath.Dir(path), src))
		}
		files = append(files, src)
	}
	return files, nil
}
