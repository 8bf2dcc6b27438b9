package blob

import (
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// state is what lies beside an upload's data. It is not fsynced: after a crash
// of the process the page cache is intact and the hash state is right; after a
// crash of the machine Boot differs and the data is hashed again.
type state struct {
	Size int64  `json:"size"`   // bytes covered by SHA256
	Hash []byte `json:"sha256"` // of crypto/sha256's MarshalBinary
	Boot string `json:"boot"`
}

// bootID names this boot of the kernel; empty if unknown, then no state is
// trusted.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

func (u *Upload) statePath() string {
	return filepath.Join(u.store.root, "uploads", u.ID+".state")
}

// checkpoint replaces the state file by rename, so that it is whole whenever
// the process dies.
func (u *Upload) checkpoint() error {
	if !u.durable {
		return nil
	}
	hash, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	b, err := json.Marshal(state{Size: u.Size(), Hash: hash, Boot: bootID()})
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	next := u.statePath() + ".next"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return u.store.noSpace(fmt.Errorf("upload %s: %w", u.ID, err))
	}
	if err := os.Rename(next, u.statePath()); err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	return nil
}

// restore rebuilds the hash from the last checkpoint and the bytes after it;
// without a trustworthy checkpoint, from all bytes.
func (u *Upload) restore() error {
	f, err := os.Open(u.dataPath())
	if err != nil {
		return ErrUploadUnknown
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	u.hash = sha256.New()
	offset := u.load(st.Size())
	n, err := io.Copy(u.hash, io.NewSectionReader(f, offset, st.Size()-offset))
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, err)
	}
	u.size.Store(offset + n)
	return nil
}

// load returns how many bytes the hash covers afterwards; 0 if the state is
// missing, damaged or of another boot.
func (u *Upload) load(available int64) int64 {
	var s state
	b, err := os.ReadFile(u.statePath())
	if err != nil || json.Unmarshal(b, &s) != nil {
		return 0
	}
	if s.Boot == "" || s.Boot != bootID() || s.Size < 0 || s.Size > available {
		return 0
	}
	if u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.Hash) != nil {
		u.hash = sha256.New()
		return 0
	}
	return s.Size
}
