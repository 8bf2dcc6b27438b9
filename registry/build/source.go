package build

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

var architectures = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64"}

// FromBinary describes an image that holds one static executable on scratch
// and runs it. A dynamically linked one is refused, for its loader and
// libraries would be missing.
func FromBinary(file string) (Spec, error) {
	f, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return Spec{}, fmt.Errorf("%s is not a Linux executable: %w", file, err)
	}
	if err != nil {
		return Spec{}, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader, _ := io.ReadAll(io.LimitReader(p.Open(), 256))
			return Spec{}, fmt.Errorf("%s is dynamically linked (it needs %q), which fails on scratch: build it with CGO_ENABLED=0 or -static, or use a Dockerfile with a base image", file, loader)
		}
	}
	architecture, ok := architectures[f.Machine]
	if !ok {
		return Spec{}, fmt.Errorf("%s is for %s, which is not supported", file, f.Machine)
	}
	name := filepath.Base(file)
	return Spec{
		Context: filepath.Dir(file), Architecture: architecture,
		Copies: []Copy{{Sources: []string{name}, To: "/" + name, Mode: 0o755}},
		Config: Config{Entrypoint: []string{"/" + name}},
	}, nil
}

// FromDirectory reads dir/Dockerfile; dir is the build context. The caller
// sets Spec.Base from Dockerfile.From unless that is "scratch".
func FromDirectory(dir string) (Dockerfile, error) {
	path := filepath.Join(dir, "Dockerfile")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Dockerfile{}, fmt.Errorf("%s has no Dockerfile: add one (FROM scratch, COPY, ENTRYPOINT), or name a static executable", dir)
	}
	if err != nil {
		return Dockerfile{}, err
	}
	d, err := ParseDockerfile(string(b))
	if err != nil {
		return Dockerfile{}, fmt.Errorf("%s: %w", path, err)
	}
	d.Spec.Context = dir
	return d, nil
}

// ParseEpoch reads SOURCE_DATE_EPOCH (reproducible-builds.org): seconds since
// 1970. Empty means no date.
func ParseEpoch(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", s)
	}
	return time.Unix(n, 0).UTC(), nil
}
