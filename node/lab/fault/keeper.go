package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"
)

// Request is what the helper process is asked on its standard input; it
// answers with a Reply on its standard output.
type Request struct {
	Op      string  `json:"op"` // begin, end, heal
	Machine Machine `json:"machine"`
	Fault   Fault   `json:"fault"`
}

// Reply is the answer to a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
}

// keeperName is what a keeper's command line begins with.
const keeperName = "appliance-fault-keeper"

// maxRequest bounds what is read from the standard input.
const maxRequest = 64 << 10

// Serve answers one request. env is what makes a process started from this
// executable call Keep.
func Serve(in io.Reader, out io.Writer, env []string) error {
	var req Request
	var rep Reply
	err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&req)
	if err == nil {
		switch req.Op {
		case "begin":
			err = start(req, env)
		case "end":
			err = req.Machine.End(req.Fault.ID)
		case "heal":
			err = req.Machine.Heal()
		default:
			err = fmt.Errorf("unknown request %q", req.Op)
		}
	}
	if err != nil {
		rep.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(rep)
}

// start starts the keeper in a session of its own, so that it is not ended
// with whoever asked, and waits until it has made the fault.
func start(req Request, env []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	cmd := exec.Command(exe)
	cmd.Args = []string{keeperName, req.Fault.ID}
	cmd.Env = append(env, "APPLIANCE_FAULT="+string(text))
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	out.Close()
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	in.SetReadDeadline(time.Now().Add(startTime))
	var rep Reply
	if err := json.NewDecoder(in).Decode(&rep); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("the keeper of the fault did not report: %w", err)
	}
	if rep.Error != "" {
		return fmt.Errorf("%s", rep.Error)
	}
	return nil
}

const (
	// startTime bounds the making of a fault on a busy machine.
	startTime = 20 * time.Second
	// keepEvery is how fast a killed service is killed again, and how late an
	// early end is noticed.
	keepEvery = 50 * time.Millisecond
)

// Keep is the keeper: it makes the fault of its environment, waits for the
// deadline or a signal, and ends it.
func Keep() error {
	debug.SetGCPercent(20) // it only waits
	report := os.NewFile(3, "report")
	var req Request
	err := json.Unmarshal([]byte(os.Getenv("APPLIANCE_FAULT")), &req)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	m, f := req.Machine, req.Fault
	if err == nil {
		f.Keeper, f.Began = os.Getpid(), time.Now()
		f.Until = f.Began.Add(f.Length) // a busy machine must not shorten it
		err = m.begin(f, time.Now())
	}
	var rep Reply
	if err != nil {
		rep.Error = err.Error()
	}
	if e := json.NewEncoder(report).Encode(rep); err != nil || e != nil {
		return err // nobody listens any more: the sweep finds an orphan
	}
	report.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go m.prove(ctx, f)
	return m.end(f, "keeper", m.keep(f, stop))
}

// keep returns at the deadline, at a signal, or when the record is gone.
func (m Machine) keep(f Fault, stop <-chan os.Signal) (kills uint64) {
	deadline := time.NewTimer(time.Until(f.Until))
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		if f.Kind == Kill {
			for _, pid := range processes(f.Service) {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					kills++
				}
			}
		}
		select {
		case <-deadline.C:
			return kills
		case <-stop:
			return kills
		case <-tick.C:
			if _, err := os.Stat(filepath.Join(m.Dir, f.ID+recordEnd)); err != nil {
				return kills
			}
		}
	}
}
