// Command skew builds the appliance with a clock that can be wrong, for tests
// only: the standard library's time.Now gets an offset, by an overlay of the
// go command, so nothing is changed on disk. The binary says "skewed" in its
// version and adds what is in the fault directory's clock file (package
// fault) to the time of day. The monotonic clock stays right, as it does when
// a real machine's clock is set.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: skew GO-BUILD-ARGUMENT...")
		os.Exit(1)
	}
	if err := build(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "skew:", err)
		os.Exit(1)
	}
}

func build(args []string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	patched, err := patch(string(text))
	if err != nil {
		return fmt.Errorf("%s of %s: %w", original, runtime.Version(), err)
	}
	dir, err := os.MkdirTemp("", "skew")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	replacement := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := errors.Join(os.WriteFile(replacement, []byte(patched), 0o600), os.WriteFile(overlayFile, overlay, 0o600)); err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-overlay", overlayFile}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

const (
	imports = "import (\n"
	body    = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	offset  = `	if d := atomic.LoadInt64(&skew); d != 0 {
		sec += d / 1e9
		n := int64(nsec) + d%1e9
		if n < 0 {
			n, sec = n+1e9, sec-1
		} else if n >= 1e9 {
			n, sec = n-1e9, sec+1
		}
		nsec = int32(n)
	}
`
	setter = `
var skew int64

// SetSkew adds ns to what Now returns from now on. It is of a test build.
func SetSkew(ns int64) { atomic.StoreInt64(&skew, ns) }
`
)

// patch adds the offset to the source of package time.
func patch(text string) (string, error) {
	if strings.Count(text, imports) != 1 || strings.Count(text, body) != 1 {
		return "", errors.New("this version of the standard library looks different: see node/lab/skew")
	}
	text = strings.Replace(text, imports, imports+"\t\"sync/atomic\"\n", 1)
	return strings.Replace(text, body, body+offset, 1) + setter, nil
}
