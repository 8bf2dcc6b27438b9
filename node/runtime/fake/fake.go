// Package fake is a Runtime in memory, for tests of what lies above. Its
// containers are Go functions; the test scripts them and can end, lose or
// fail anything. An Engine outlives its drivers, so a restarted agent finds
// its containers again.
package fake

import (
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"appliance/node/runtime"
	"appliance/node/runtime/logs"
)

// Proc is what a Program sees of its container.
type Proc struct {
	Spec           runtime.ContainerSpec
	Args           []string // what would be executed
	Env            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan runtime.Signal // never SIGKILL
}

// Program is a container's process: it returns the exit code. ctx ends when
// the container is killed; the container has exited then, whatever the
// program does.
type Program func(ctx context.Context, p *Proc) int

// UntilTerm runs until SIGTERM or SIGINT and exits 0: the default program.
func UntilTerm(ctx context.Context, p *Proc) int {
	for {
		select {
		case <-ctx.Done():
			return 137
		case s := <-p.Signals:
			if s == 15 || s == 2 {
				return 0
			}
		}
	}
}

// ExitAfter runs for d and exits with code.
func ExitAfter(d time.Duration, code int) Program {
	return func(ctx context.Context, p *Proc) int {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
		return code
	}
}

// Engine is the fake container engine. Its zero value is not usable: New.
type Engine struct {
	mu         sync.Mutex
	images     map[string]runtime.Image // by canonical ref
	remote     map[string]bool          // what Pull finds; nil: everything
	programs   map[string]Program       // by canonical ref
	fail       map[string]error         // by operation
	pullDelay  time.Duration
	containers map[string]*container
	subs       map[chan runtime.Event]struct{}
	ports      map[runtime.PortMapping]string
	pulls      int
}

// New returns an engine without images in which every Pull succeeds.
func New() *Engine {
	return &Engine{
		images: map[string]runtime.Image{}, programs: map[string]Program{}, fail: map[string]error{},
		containers: map[string]*container{}, subs: map[chan runtime.Event]struct{}{}, ports: map[runtime.PortMapping]string{},
	}
}

// Open returns a driver; several may be open at once.
func (e *Engine) Open() *Runtime { return &Runtime{e: e} }

// Program sets what containers of an image run, and makes the image present.
func (e *Engine) Program(ref string, p Program) {
	e.mu.Lock()
	defer e.mu.Unlock()
	img := e.addImage(ref)
	e.programs[img.Ref] = p
}

// Remote limits what Pull finds to refs.
func (e *Engine) Remote(refs ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remote = map[string]bool{}
	for _, r := range refs {
		e.remote[canonical(r)] = true
	}
}

// Fail makes an operation ("Pull", "Create", "Start", ...) return err until
// it is called with nil.
func (e *Engine) Fail(op string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail[op] = err
}

// PullDelay makes every Pull take d.
func (e *Engine) PullDelay(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pullDelay = d
}

// Pulls counts the transfers made.
func (e *Engine) Pulls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pulls
}

// Exit ends a running container as if its process had exited.
func (e *Engine) Exit(id string, code int) { e.end(id, runtime.Exit{Known: true, Code: code}) }

// OOM ends a running container as the kernel would for lack of memory.
func (e *Engine) OOM(id string) {
	e.publish(runtime.EventOOM, id)
	e.end(id, runtime.Exit{Known: true, Code: 137, OOM: true})
}

// Lose ends a running container without anybody seeing how.
func (e *Engine) Lose(id string) { e.end(id, runtime.Exit{}) }

// Reboot ends every running container, unseen, as a power cut does.
func (e *Engine) Reboot() {
	for _, id := range e.IDs() {
		e.Lose(id)
	}
}

// IDs lists all containers.
func (e *Engine) IDs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.containers))
}

// Spec returns what a container was created with.
func (e *Engine) Spec(id string) (runtime.ContainerSpec, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.containers[id]
	if !ok {
		return runtime.ContainerSpec{}, false
	}
	return c.spec, true
}

func (e *Engine) publish(typ runtime.EventType, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.publishLocked(typ, id)
}

func (e *Engine) publishLocked(typ runtime.EventType, id string) {
	for ch := range e.subs {
		select {
		case ch <- runtime.Event{Type: typ, ID: id, At: time.Now()}:
		default: // events are hints
		}
	}
}

func (e *Engine) end(id string, exit runtime.Exit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		e.endLocked(c, exit)
	}
}

func (e *Engine) endLocked(c *container, exit runtime.Exit) {
	if c.state != runtime.StateRunning {
		return
	}
	exit.At = time.Now()
	c.state, c.exit = runtime.StateExited, exit
	c.cancel()
	close(c.exited)
	e.publishLocked(runtime.EventExit, c.spec.ID)
}

// Close ends every container's goroutine: for the end of a test.
func (e *Engine) Close() {
	e.mu.Lock()
	var procs []*container
	for _, c := range e.containers {
		e.endLocked(c, runtime.Exit{Known: true, Code: 137})
		procs = append(procs, c)
	}
	e.mu.Unlock()
	for _, c := range procs {
		c.procs.Wait()
	}
}

var _ runtime.Runtime = (*Runtime)(nil)

// container is one fake container; the engine's lock guards it.
type container struct {
	spec    runtime.ContainerSpec
	limits  runtime.Resources
	state   runtime.State
	exit    runtime.Exit
	created time.Time
	started time.Time
	signals chan runtime.Signal
	cancel  context.CancelFunc
	ctx     context.Context
	exited  chan struct{}
	procs   sync.WaitGroup
}

func (c *container) openLogs() (out, errw io.WriteCloser, err error) {
	if c.spec.LogDir == "" {
		return discard{}, discard{}, nil
	}
	if err := logs.Prepare(c.spec.LogDir); err != nil {
		return nil, nil, err
	}
	out, err = appendFile(c.spec.LogDir, logs.Stdout)
	if err != nil {
		return nil, nil, err
	}
	errw, err = appendFile(c.spec.LogDir, logs.Stderr)
	if err != nil {
		out.Close()
	}
	return out, errw, err
}
