package server

import (
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// volumeFile is what <volume>/volume.json holds.
type volumeFile struct {
	ID      []byte        `json:"id"` // random, part of every file handle
	Options VolumeOptions `json:"options"`
	// Sum is the CRC-32C of the file without it; 0 in a file of before there was one. See sumOfJSON.
	Sum uint32 `json:"sum,omitempty"`
}

var errDamagedFile = errors.New("volume.json is damaged: restore it from a backup")

func (f volumeFile) encode() ([]byte, error) {
	f.Sum = 0
	b, err := json.Marshal(f)
	if err == nil {
		f.Sum, err = sumOfJSON(b)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(f)
}

func decodeVolumeFile(b []byte) (f volumeFile, err error) {
	if json.Unmarshal(b, &f) != nil || len(f.ID) != volumeIDLen {
		return f, errDamagedFile
	}
	if sum, err := sumOfJSON(b); err != nil || f.Sum != 0 && f.Sum != sum {
		return f, errDamagedFile
	}
	return f, nil
}

// sumOfJSON is the sum of an object without its "sum": keys in order, values as they are but for white space. It does
// not look at what the keys mean: fields that only a later release knows are in it, and must be as they were, too.
func sumOfJSON(b []byte) (uint32, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return 0, err
	}
	delete(fields, "sum")
	b, err := json.Marshal(fields)
	return max(1, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), err
}

// readVolumeFile fails with ErrNotExist for a volume that is half created or half removed.
func readVolumeFile(dir string) (f volumeFile, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "volume.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, have := os.Stat(filepath.Join(dir, "store")); have == nil {
			return f, errors.New("volume.json is missing: restore it from a backup")
		}
	}
	if err != nil {
		return f, err
	}
	return decodeVolumeFile(b)
}

// writeVolumeFile makes the directory dir with its volume.json appear atomically.
func writeVolumeFile(dir string, vf volumeFile) error {
	b, err := vf.encode()
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(dir), ".new-"+filepath.Base(dir))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(tmp, "volume.json"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
