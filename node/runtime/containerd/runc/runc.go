// Package runc carries the OCI runtime inside the binary. Its build program
// (go run ./node/runtime/containerd/runc/build) makes runc.zst from the
// version pinned in go.mod; the build tag embedrunc takes it in. Without the
// tag the package is empty, so that an ordinary `go build ./...` needs no C
// compiler.
package runc

//go:generate go run ./build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Embedded reports whether this binary carries runc.
func Embedded() bool { return len(compressed) > 0 }

// Unpack writes runc into dir, once per version, and returns its path. The
// name holds the content's digest: a running container's runc is never
// overwritten by an upgrade.
func Unpack(dir string) (string, error) {
	sum := sha256.Sum256(compressed)
	path := filepath.Join(dir, "runc-"+hex.EncodeToString(sum[:6]))
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o100 != 0 {
		return path, nil
	}
	d, err := zstd.NewReader(bytes.NewReader(compressed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return "", fmt.Errorf("unpack runc: %w", err)
	}
	defer d.Close()
	f, err := os.CreateTemp(dir, ".runc-*")
	if err != nil {
		return "", fmt.Errorf("unpack runc: %w", err)
	}
	defer os.Remove(f.Name()) // a no-op after the rename
	_, err = io.Copy(f, d)
	if err == nil {
		err = f.Chmod(0o755)
	}
	if err == nil {
		err = f.Sync() // a torn runc would be taken for a good one
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("unpack runc: %w", err)
	}
	return path, nil
}
