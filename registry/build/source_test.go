package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestFromBinary(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	os.WriteFile(source, []byte("package main\nfunc main() {}\n"), 0o600)
	static := filepath.Join(dir, "static")
	cmd := exec.Command("go", "build", "-o", static, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	spec, err := FromBinary(static)
	if err != nil || spec.Architecture != runtime.GOARCH || !slices.Equal(spec.Config.Entrypoint, []string{"/static"}) {
		t.Fatalf("%+v %v", spec, err)
	}
	if _, err := Build(t.Context(), spec, newLayout(t)); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"/bin/sh":                  "dynamically linked",
		source:                     "not a Linux executable",
		filepath.Join(dir, "nope"): "no such file",
	} {
		if _, err := FromBinary(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
}

func TestFromDirectory(t *testing.T) {
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY app /app\nRUN x", "app*": "x"})
	if _, err := FromDirectory(dir); err == nil || !strings.Contains(err.Error(), "Dockerfile: line 3: RUN is not supported") {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY app /app\nCMD [\"/app\"]"), 0o600)
	d, err := FromDirectory(dir)
	if err != nil || d.From != "scratch" {
		t.Fatal(d, err)
	}
	if _, err := Build(t.Context(), d.Spec, newLayout(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := FromDirectory(t.TempDir()); err == nil || !strings.Contains(err.Error(), "has no Dockerfile") {
		t.Fatal(err)
	}
}

func TestParseEpoch(t *testing.T) {
	if at, err := ParseEpoch("1700000000"); err != nil || at.Unix() != 1700000000 {
		t.Fatal(at, err)
	}
	if at, err := ParseEpoch(""); err != nil || !at.IsZero() {
		t.Fatal(at, err)
	}
	if _, err := ParseEpoch("yesterday"); err == nil {
		t.Fatal("accepted")
	}
}
