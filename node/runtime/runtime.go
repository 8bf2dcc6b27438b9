// Package runtime runs containers. It holds the one interface behind which
// every container engine sits, the words spoken over it, and the choice of an
// engine. It imports no engine: drivers live in sub-packages and import this
// one.
package runtime

import (
	"context"
	"io"
	"time"
)

// Runtime is one container engine. All methods are safe for concurrent use
// and identify a container by ContainerSpec.ID. Methods that name an absent
// container return an error that Is ErrNotFound, except Remove.
type Runtime interface {
	// Name is the driver's name: "docker", "containerd", "embedded", "fake".
	Name() string
	// Info describes the engine; it is also the health probe.
	Info(ctx context.Context) (Info, error)

	// Pull makes the image present and unpacked, and returns it. Concurrent
	// pulls of one reference share the transfer.
	Pull(ctx context.Context, ref string, opts PullOptions) (Image, error)
	// Import loads a `docker save` or OCI layout tar stream.
	Import(ctx context.Context, r io.Reader) ([]Image, error)
	Images(ctx context.Context) ([]Image, error)
	// RemoveImage drops one name of an image, and its bytes with the last
	// name. An absent image is not an error.
	RemoveImage(ctx context.Context, ref string) error

	// Create prepares a container without starting it. It is idempotent: an
	// equal spec under the same ID succeeds, a different one is ErrConflict.
	// A failed Create leaves nothing behind.
	Create(ctx context.Context, spec ContainerSpec) error
	Start(ctx context.Context, id string) error
	// Wait blocks until the container has exited. It may be called before
	// Start, after the exit, and by a driver instance that did not start the
	// container.
	Wait(ctx context.Context, id string) (Exit, error)
	// Stop sends the spec's StopSignal, waits for grace and kills. A negative
	// grace takes the spec's GracePeriod. It returns after the exit.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Signal sends one signal to the container's first process.
	Signal(ctx context.Context, id string, sig Signal) error
	// Remove deletes the container and all that came with it (network,
	// mounts, cgroup), killing it first when it runs. The log directory
	// stays: it belongs to the caller. Removing an absent one succeeds.
	Remove(ctx context.Context, id string) error

	Inspect(ctx context.Context, id string) (Status, error)
	// List returns our containers that carry all the given labels, by ID.
	List(ctx context.Context, labels map[string]string) ([]Status, error)
	// Update changes the limits of a running container.
	Update(ctx context.Context, id string, r Resources) error
	Stats(ctx context.Context, id string) (Stats, error)

	// Logs copies the container's output to the writers in opts. With Follow
	// it returns after the exit, when all output is copied.
	Logs(ctx context.Context, id string, opts LogOptions) error
	// Exec runs one more process in a running container and returns its exit
	// code. Cancelling ctx kills the process.
	Exec(ctx context.Context, id string, spec ExecSpec) (int, error)

	// Events reports state changes until ctx ends; the channel is closed then
	// or when the engine goes away. Events are hints: pair them with List.
	Events(ctx context.Context) (<-chan Event, error)

	// Close releases the driver. Containers go on.
	Close() error
}

// Info describes an engine.
type Info struct {
	Name       string // driver
	Version    string // engine version
	OCIRuntime string // "runc 1.5.2 (embedded)"; empty when the engine hides it
	Cgroup     string // "v1" or "v2"
	Storage    string // snapshotter or storage driver
	Features   Features
	// Warnings are sentences for `appliance doctor`, such as a missing
	// seccomp. Empty is good.
	Warnings []string
}

// Features says what an engine really does on this machine.
type Features struct {
	Processes   bool // runs real processes (false only for the fake)
	Bridge      bool // NetworkBridge works
	MemoryLimit bool
	CPULimit    bool
	Seccomp     bool
	// KeepsExits tells that exits which happen while the engine is down are
	// not lost.
	KeepsExits bool
}

// Stats is one sample of a running container.
type Stats struct {
	At          time.Time
	CPU         time.Duration // consumed since the start
	Throttled   time.Duration // time held back by CPULimit
	MemoryBytes uint64        // without reclaimable file cache
	MemoryLimit uint64        // 0: none
	Pids        uint64
	OOMKills    uint64
}

// EventType names a state change.
type EventType string

// The events that drivers report.
const (
	EventStart EventType = "start"
	EventExit  EventType = "exit"
	EventOOM   EventType = "oom"
)

// Event is one state change of one of our containers.
type Event struct {
	Type EventType
	ID   string
	At   time.Time
}
