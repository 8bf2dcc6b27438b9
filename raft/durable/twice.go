package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// WriteTwice is Write with a second, sealed copy, which is written first: as long as it is intact the
// content of path can be told from damage, and made again.
func WriteTwice(path, second string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(second), 0o700); err != nil {
		return err
	}
	if err := WriteSealed(second, data); err != nil {
		return err
	}
	return Write(path, data)
}

// ReadTwice returns what WriteTwice wrote. If path is not the same as its copy any more, and keep does not
// accept what it holds now, it is moved to aside and made again. A missing or damaged copy is made from
// path: files of older versions have none. The error is fs.ErrNotExist if both are missing.
func ReadTwice(path, second, aside string, keep func([]byte) bool) ([]byte, error) {
	data, err := os.ReadFile(path)
	body, copyErr := ReadSealed(second)
	switch {
	case copyErr != nil && !errors.Is(copyErr, fs.ErrNotExist) && !errors.Is(copyErr, ErrDamaged):
		return nil, copyErr
	case err != nil && copyErr != nil:
		return nil, err
	case err == nil && copyErr == nil && bytes.Equal(data, body):
		return data, nil
	case err == nil && (copyErr != nil || keep != nil && keep(data)):
		if err := os.MkdirAll(filepath.Dir(second), 0o700); err != nil {
			return nil, err
		}
		return data, WriteSealed(second, data)
	case err == nil:
		if _, err := Aside(path, aside, time.Now()); err != nil {
			return nil, err
		}
	}
	return body, Write(path, body)
}

// RemoveTwice removes a file and its copy, the copy first: it would bring the file back. Missing ones are
// no error.
func RemoveTwice(path, second string) error {
	for _, p := range []string{second, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := SyncDir(filepath.Dir(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
