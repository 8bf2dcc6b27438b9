package store

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Damaged reads again, and lists, at most this much. What is damaged beyond that is known when it is met again.
const (
	maxDamage       = 16 // files
	maxDamageOfFile = 16 // blocks
)

// damagedError is an EIO for one file.
type damagedError struct {
	Damage
	block uint64
}

func (e *damagedError) Unwrap() error { return syscall.EIO }
func (e *damagedError) Error() string { return e.File + " is damaged: " + e.Why + ": " + e.Fix }

// Damage is a file of a volume that is not as it was written.
type Damage struct{ File, Why, Fix string }

// damage describes a file by those of its blocks that are damaged.
func (fs *files) damage(ino Ino, blocks ...uint64) Damage {
	var at []string
	for _, b := range blocks {
		at = append(at, strconv.FormatUint(b*sumBlock, 10))
	}
	return Damage{fs.path(ino),
		fmt.Sprintf("its %d bytes at %s are not what was written", sumBlock, strings.Join(at, ", ")),
		"write them again from a backup, or, to take what is there, stop the node and remove " + fs.sumPath(ino)}
}

// Damaged lists files of which a block was met that is not as it was written, and still is not.
func (v *Volume) Damaged() (out []Damage) {
	for ino, f := range v.files.hurt() {
		if blocks := v.stillDamaged(ino, f); len(blocks) > 0 {
			out = append(out, v.files.damage(ino, blocks...))
		}
		v.files.release(f)
	}
	slices.SortFunc(out, func(a, b Damage) int { return strings.Compare(a.File, b.File) })
	return out
}

// stillDamaged reads the damaged blocks of a file again, and forgets those that are mended.
func (v *Volume) stillDamaged(ino Ino, f *file) (out []uint64) {
	for _, b := range v.files.damagedBlocks(f) {
		if _, _, _, err := v.Read(ino, b*sumBlock, make([]byte, 1)); errors.Is(err, syscall.EIO) {
			out = append(out, b)
		} else {
			v.files.mended(f, b)
		}
	}
	return out
}

// hurt are files with damage, each acquired.
func (fs *files) hurt() map[Ino]*file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := map[Ino]*file{}
	for ino, f := range fs.byNo {
		if len(f.damaged) > 0 && len(out) < maxDamage {
			f.users++
			out[ino] = f
		}
	}
	return out
}

// met notes a damaged block, and tells whether it is the first of its file.
func (fs *files) met(f *file, block uint64) (first bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	first = len(f.damaged) == 0
	if len(f.damaged) < maxDamageOfFile && !slices.Contains(f.damaged, block) {
		f.damaged = append(f.damaged, block)
		slices.Sort(f.damaged)
	}
	return first
}

func (fs *files) mended(f *file, block uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.damaged = slices.DeleteFunc(f.damaged, func(b uint64) bool { return b == block })
}

func (fs *files) damagedBlocks(f *file) []uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.Clone(f.damaged)
}
