package build

import (
	"encoding/json"
	"slices"
	"strings"

	"appliance/registry/ref"
)

// image is the OCI image configuration (image specification 1.1). Fields that
// this package does not set are carried over from a base image.
type image struct {
	Created      *string   `json:"created,omitempty"`
	Author       string    `json:"author,omitempty"`
	Architecture string    `json:"architecture"`
	Variant      string    `json:"variant,omitempty"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
	History      []history `json:"history,omitempty"`
}

type rootFS struct {
	Type    string       `json:"type"`
	DiffIDs []ref.Digest `json:"diff_ids"`
}

type history struct {
	Created    *string `json:"created,omitempty"`
	CreatedBy  string  `json:"created_by,omitempty"`
	Comment    string  `json:"comment,omitempty"`
	EmptyLayer bool    `json:"empty_layer,omitempty"`
}

type runConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
	Healthcheck  json.RawMessage     `json:"Healthcheck,omitempty"`
}

// defaultPath is what Docker gives an image without one.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (r *runConfig) apply(c Config) {
	for _, e := range append([]string{defaultPath}, c.Env...) {
		r.setEnv(e, e != defaultPath)
	}
	if c.User != "" {
		r.User = c.User
	}
	if c.WorkingDir != "" {
		r.WorkingDir = c.WorkingDir
	}
	if c.Entrypoint != nil {
		r.Entrypoint = c.Entrypoint
		r.Cmd = nil // a base's arguments fit its own entry point only
	}
	if c.Cmd != nil {
		r.Cmd = c.Cmd
	}
	for _, p := range c.Ports {
		if r.ExposedPorts == nil {
			r.ExposedPorts = map[string]struct{}{}
		}
		r.ExposedPorts[p] = struct{}{}
	}
	for k, v := range c.Labels {
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[k] = v
	}
}

func (r *runConfig) setEnv(e string, overwrite bool) {
	name, _, _ := strings.Cut(e, "=")
	i := slices.IndexFunc(r.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
	switch {
	case i < 0:
		r.Env = append(r.Env, e)
	case overwrite:
		r.Env[i] = e
	}
}
