package raft

import (
	"errors"
	"fmt"
	"strings"
)

// ErrDamaged says that files of the log are not what this node has written. It must not vote with them.
var ErrDamaged = errors.New("the log of this master is damaged")

// Damage is one file that is not what it was.
type Damage struct {
	File string `json:"file"`
	What string `json:"what"`
}

// DamageError lists what is damaged. It matches ErrDamaged.
type DamageError struct {
	Files []Damage
}

func (e *DamageError) Error() string {
	var parts []string
	for _, d := range e.Files {
		parts = append(parts, d.File+": "+d.What)
	}
	return fmt.Sprintf("%v: %s", ErrDamaged, strings.Join(parts, "; "))
}

// Unwrap lets errors.Is find ErrDamaged.
func (e *DamageError) Unwrap() error { return ErrDamaged }
