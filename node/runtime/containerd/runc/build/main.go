// Command build compiles runc, at the version pinned as a tool in go.mod, as
// a static binary, and compresses it to runc.zst beside this directory, for
// the build tag embedrunc. It needs gcc and libc6-dev, and libseccomp-dev for
// the system call filter; as root on Debian it installs what is missing.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const module = "github.com/opencontainers/runc"

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatalln("build runc:", err)
	}
}

func run() error {
	_, self, _, _ := runtime.Caller(0)
	target := filepath.Join(filepath.Dir(filepath.Dir(self)), "runc.zst")
	version, err := output("go", "list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return err
	}
	tags := []string{"netgo", "osusergo"}
	if ensureC() {
		tags = append(tags, "seccomp")
	} else {
		log.Println("warning: libseccomp-dev is missing: containers will run without a system call filter")
	}
	// The compressed file remembers what it was made of, in a frame that
	// decoders skip.
	recipe := strings.TrimSpace(version) + " " + strings.Join(tags, ",") + " " + runtime.GOARCH
	if old, err := os.ReadFile(target); err == nil && bytes.HasPrefix(old, skippable(recipe)) {
		return nil
	}
	bin, err := compile(tags)
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	out := enc.EncodeAll(bin, skippable(recipe))
	log.Printf("runc %s: %.1f MB, compressed %.1f MB", recipe, float64(len(bin))/1e6, float64(len(out))/1e6)
	tmp := target + ".tmp"
	if err := os.WriteFile(tmp, out, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, target)
}

func compile(tags []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "runc-build-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "runc")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", strings.Join(tags, " "),
		"-ldflags", "-s -w -linkmode external -extldflags -static", "-o", bin, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("compile (needs gcc and libc6-dev): %w", err)
	}
	return os.ReadFile(bin)
}

// ensureC reports whether programs link statically with libseccomp, after
// installing the packages where that is possible.
func ensureC() bool {
	if links() {
		return true
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return false
	}
	install := func() error {
		cmd := exec.Command("apt-get", "install", "-y", "--no-install-recommends", "gcc", "libc6-dev", "libseccomp-dev", "pkg-config")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	if install() != nil { // the package lists of a fresh machine are old or empty
		_ = exec.Command("apt-get", "update").Run() // the next install tells
		if err := install(); err != nil {
			log.Println("apt-get:", err)
		}
	}
	return links()
}

func links() bool {
	cmd := exec.Command("gcc", "-static", "-x", "c", "-o", os.DevNull, "-", "-lseccomp")
	cmd.Stdin = strings.NewReader("#include <seccomp.h>\nint main(void) { return seccomp_init(SCMP_ACT_ALLOW) == 0; }\n")
	if cmd.Run() != nil {
		return false
	}
	_, err := exec.LookPath("pkg-config")
	return err == nil && exec.Command("pkg-config", "--exists", "libseccomp").Run() == nil
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// skippable is a zstd skippable frame (RFC 8878, section 3.1.2).
func skippable(text string) []byte {
	n := len(text)
	return append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(n), byte(n >> 8), 0, 0}, text...)
}
