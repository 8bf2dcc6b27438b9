// Package durable writes small files so that a crash leaves the old or the new content and damage is
// noticed: whatever a call has written is on disk when it returns.
package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ErrDamaged says that a sealed file is not what was written.
var ErrDamaged = errors.New("its checksum does not match")

// Write replaces the file at path (mode 0600) as a whole.
func Write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Seal adds a line to body that holds its SHA-256.
func Seal(body []byte) []byte { return fmt.Appendf(bytes.Clone(body), "\n%s\n", Sum(body)) }

// Unseal returns the body of what Seal made. The error is ErrDamaged if it was changed or cut short.
func Unseal(raw []byte) ([]byte, error) {
	const tail = 1 + 2*sha256.Size + 1
	if len(raw) < tail {
		return nil, ErrDamaged
	}
	body := raw[:len(raw)-tail]
	if string(raw[len(body):]) != "\n"+Sum(body)+"\n" {
		return nil, ErrDamaged
	}
	return body, nil
}

// WriteSealed is Write with what Seal makes of body.
func WriteSealed(path string, body []byte) error { return Write(path, Seal(body)) }

// ReadSealed returns the body of a sealed file. The error is ErrDamaged if it was changed or cut short.
func ReadSealed(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	body, err := Unseal(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return body, nil
}

// Sum is the SHA-256 of data in hexadecimal.
func Sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Aside moves path, a file or a directory, into the directory to, under a name that says when. It
// returns the new place. What is moved aside is never deleted by the node.
func Aside(path, to string, now time.Time) (string, error) {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", err
	}
	base := filepath.Join(to, now.UTC().Format("20060102T150405")+"-"+filepath.Base(path))
	place := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(place); os.IsNotExist(err) {
			break
		}
		place = fmt.Sprintf("%s-%d", base, i)
	}
	if err := os.Rename(path, place); err != nil {
		return "", err
	}
	return place, errors.Join(SyncDir(to), SyncDir(filepath.Dir(path)))
}
