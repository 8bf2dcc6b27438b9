package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"appliance/node/model"

	"go.yaml.in/yaml/v3"
)

// appFile is what a project keeps beside its code: how to make the image and
// how to run it. YAML or JSON.
type appFile struct {
	Name  string        `json:"name"`
	Build buildSpec     `json:"build"`
	App   model.AppSpec `json:"app"`
}

// buildSpec says what the image is made of.
type buildSpec struct {
	From       string            `json:"from,omitempty"`       // "scratch" (default) or an image of the cluster's registry
	Files      map[string]string `json:"files,omitempty"`      // source, relative to the file -> path in the image
	Dockerfile string            `json:"dockerfile,omitempty"` // instead of Files
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	Ports      []string          `json:"ports,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkDir    string            `json:"workDir,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// maxAppFile bounds an app file; real ones have some hundred bytes.
const maxAppFile = 1 << 20

// loadAppFile reads an app file strictly: a misspelt field is an error.
func loadAppFile(path string) (*appFile, error) {
	raw, err := readLimited(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, model.Errorf(model.CodeNotFound, "there is no file %s", path).Try("name the app file with -f, or run it in the app's directory")
	}
	if err != nil {
		return nil, err
	}
	var generic any
	if err := yaml.Unmarshal(raw, &generic); err != nil { // JSON is YAML too
		return nil, model.Errorf(model.CodeInvalid, "%s cannot be read", path).Because("%v", err)
	}
	asJSON, err := json.Marshal(generic)
	if err != nil {
		return nil, model.Errorf(model.CodeInvalid, "%s cannot be read", path).Because("%v", err)
	}
	var f appFile
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, model.Errorf(model.CodeInvalid, "%s is not an app file", path).Because("%v", err).Try("check the spelling; see appliance build --help for the form")
	}
	if f.Name == "" {
		return nil, model.Errorf(model.CodeInvalid, "%s has no name", path).Try("add a line such as: name: notejam")
	}
	return &f, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxAppFile+1))
	if err == nil && len(raw) > maxAppFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxAppFile)
	}
	return raw, err
}
