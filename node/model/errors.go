package model

import (
	"errors"
	"fmt"
)

// Code classifies an error for callers and transports. It is part of the API
// ("error.code") and therefore stable.
type Code string

const (
	CodeInvalid     Code = "invalid"     // the request itself is wrong
	CodeNotFound    Code = "not_found"   // it names something that is not there
	CodeConflict    Code = "conflict"    // somebody else changed it, or the name is taken
	CodeDenied      Code = "denied"      // not allowed
	CodeUnplaceable Code = "unplaceable" // no node can take it
	CodeUnavailable Code = "unavailable" // no leader, no quorum, a peer is away: try again
	CodeExhausted   Code = "exhausted"   // a limit or a disk is full
	CodeInternal    Code = "internal"    // a fault of ours
)

// Error is what a user reads: what happened, why, and what to do.
type Error struct {
	Code Code   `json:"code"`
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	Fix  string `json:"fix,omitempty"`
}

func (e *Error) Error() string {
	s := e.What
	if e.Why != "" {
		s += ": " + e.Why
	}
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Errorf makes an Error whose What is formatted; add Why and Fix by Because
// and Try.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, What: fmt.Sprintf(format, args...)}
}

// Because sets the cause.
func (e *Error) Because(format string, args ...any) *Error {
	e.Why = fmt.Sprintf(format, args...)
	return e
}

// Try sets what the reader can do about it.
func (e *Error) Try(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// CodeOf returns the code of err, CodeInternal for any foreign error.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
