// Package archive is the form in which the state of a cluster leaves it: one
// self-contained file that names its cluster, proves that it is whole, and can
// be read without a cluster. It is pure.
//
// A file is: one line of JSON (Header), the state (state.Snapshot.Write) in
// gzip, and the SHA-256 of everything before. Whoever has a file has the
// hashes of the cluster's tokens and its secrets: it is for the operator's
// eyes only.
package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Format names the version of the file's form. A reader refuses what it does
// not know.
const Format = "appliance-snapshot/1"

const (
	maxHeader = 64 << 10
	// maxState bounds the unpacked state, so that a small file cannot fill the
	// memory. A million tasks take about 1 GiB.
	maxState = 2 << 30
)

// Header is what a file says about itself.
type Header struct {
	Format  string         `json:"format"`
	Cluster string         `json:"cluster"` // id
	Name    string         `json:"name,omitempty"`
	Index   uint64         `json:"index"` // log index of the state
	Term    uint64         `json:"term"`
	Time    time.Time      `json:"time"`
	Version string         `json:"version,omitempty"` // of the program that wrote it
	Tables  map[string]int `json:"tables"`            // rows
}

// Write writes the view as a file. Index, format, cluster and row counts of h
// are filled in.
func Write(w io.Writer, snap *state.Snapshot, h Header) error {
	h.Format, h.Index, h.Tables = Format, snap.Index(), snap.Counts()
	for c := range state.Clusters.All(snap) {
		h.Cluster, h.Name = c.ID, c.Name
	}
	if h.Cluster == "" {
		return model.Errorf(model.CodeUnavailable, "this node knows no state of its cluster yet").Try("wait until it has reached a master")
	}
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	if _, err := out.Write(append(line, '\n')); err != nil {
		return err
	}
	pack := gzip.NewWriter(out)
	if err := errors.Join(snap.Write(pack), pack.Close()); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// Verify checks the whole file of the given size and returns its header.
func Verify(file io.ReaderAt, size int64) (Header, error) {
	body := size - sha256.Size
	if body <= 0 {
		return Header{}, damaged("it has %d bytes", size)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, body)); err != nil {
		return Header{}, fmt.Errorf("read the snapshot: %w", err)
	}
	var want [sha256.Size]byte
	if _, err := file.ReadAt(want[:], body); err != nil && err != io.EOF {
		return Header{}, fmt.Errorf("read the snapshot: %w", err)
	}
	if !bytes.Equal(sum.Sum(nil), want[:]) {
		return Header{}, damaged("its checksum does not match its content")
	}
	h, _, err := open(file, body)
	return h, err
}

// Load checks the file and reads its state into a store of its own.
func Load(file io.ReaderAt, size int64) (Header, *state.Store, error) {
	h, err := Verify(file, size)
	if err != nil {
		return h, nil, err
	}
	_, rest, err := open(file, size-sha256.Size)
	if err != nil {
		return h, nil, err
	}
	unpack, err := gzip.NewReader(rest)
	if err != nil {
		return h, nil, damaged("%v", err)
	}
	store := state.New()
	if err := store.Restore(io.LimitReader(unpack, maxState)); err != nil {
		return h, nil, model.Errorf(model.CodeInvalid, "the snapshot cannot be used").Because("%v", err).Try("use the version that wrote it: %s", h.Version)
	}
	for c := range state.Clusters.All(store.Snapshot()) {
		if c.ID == h.Cluster && store.Index() == h.Index {
			return h, store, nil
		}
	}
	return h, nil, damaged("its header speaks of another state")
}

// open reads the header and returns what follows it.
func open(file io.ReaderAt, body int64) (Header, io.Reader, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(file, 0, body), maxHeader)
	line, err := in.ReadSlice('\n')
	var h Header
	if err != nil || json.Unmarshal(line, &h) != nil || h.Format == "" {
		return h, nil, model.Errorf(model.CodeInvalid, "this is no snapshot of a cluster").Try("make one with: appliance snapshot save FILE")
	}
	if h.Format != Format {
		return h, nil, model.Errorf(model.CodeInvalid, "the snapshot has the format %q, this version reads %q", h.Format, Format).
			Try("use a newer version of the program")
	}
	return h, in, nil
}

func damaged(why string, args ...any) error {
	return model.Errorf(model.CodeInvalid, "the snapshot is damaged or cut short").Because(why, args...).Try("use another one; nothing was changed")
}
