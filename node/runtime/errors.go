package runtime

import (
	"errors"
	"fmt"
	"syscall"
)

// Sentinels to test with errors.Is. Drivers return them inside an *Error that
// says what to do.
var (
	// ErrNotFound: no container has that ID.
	ErrNotFound = errors.New("container not found")
	// ErrImageNotFound: the image is neither here nor, for Pull, there.
	ErrImageNotFound = errors.New("image not found")
	// ErrPortInUse: a host port is taken; nothing was started.
	ErrPortInUse = errors.New("port in use")
	// ErrNoSpace: a disk is full; nothing was changed.
	ErrNoSpace = errors.New("no space left")
	// ErrConflict: the ID exists with another spec.
	ErrConflict = errors.New("container exists with another spec")
	// ErrNotRunning: the call needs a running container.
	ErrNotRunning = errors.New("container not running")
	// ErrInvalid: the spec or reference cannot be run by any engine.
	ErrInvalid = errors.New("invalid container spec")
	// ErrCommand: the image has no such command, or it is not executable.
	ErrCommand = errors.New("command cannot be run")
	// ErrUnavailable: the engine or registry does not answer; retry later.
	ErrUnavailable = errors.New("runtime unavailable")
	// ErrUnsupported: this engine cannot do that here.
	ErrUnsupported = errors.New("not supported by this runtime")
)

// Error is a failure a user reads: what happened, why, and what to do.
type Error struct {
	Kind error  // one of the sentinels, or nil
	What string // "start container web-1"
	Why  error  // the engine's own words
	Do   string // one sentence; may be empty
}

func (e *Error) Error() string {
	s := e.What
	if e.Kind != nil {
		s += ": " + e.Kind.Error()
	}
	if e.Why != nil {
		s += ": " + e.Why.Error()
	}
	if e.Do != "" {
		s += "; " + e.Do
	}
	return s
}

// Unwrap makes errors.Is see both the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Why != nil {
		errs = append(errs, e.Why)
	}
	return errs
}

var advice = map[error]string{
	ErrImageNotFound: "check the name and tag, or push the image first",
	ErrPortInUse:     "stop what listens there or choose another host port",
	ErrNoSpace:       "free disk space on the node (appliance doctor shows where) and retry",
	ErrCommand:       "check the image's entrypoint and the app's cmd or args",
	ErrUnavailable:   "check that the engine runs on this node (appliance doctor)",
}

// Fail builds an Error with the standard advice for its kind.
func Fail(kind error, why error, format string, args ...any) error {
	if errors.Is(why, syscall.ENOSPC) {
		kind = ErrNoSpace
	}
	return &Error{Kind: kind, What: fmt.Sprintf(format, args...), Why: why, Do: advice[kind]}
}
