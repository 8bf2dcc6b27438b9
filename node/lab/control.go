package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
)

// The control socket is SOCK_SEQPACKET: one JSON message a packet, open files
// beside it (unix(7), SCM_RIGHTS). A connection carries one request and its
// answer; during an exec the host may send signals on it.

// maxPacket bounds one message: an exec's arguments and environment.
const maxPacket = 128 << 10

type request struct {
	Op     string   `json:"op"` // exec, signal, start, stop, kill, status
	Args   []string `json:"args,omitempty"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	Signal int      `json:"signal,omitempty"`
	Stay   bool     `json:"stay,omitempty"`
}

type answer struct {
	Error   string         `json:"error,omitempty"`
	Code    int            `json:"code,omitempty"`
	Service *ServiceStatus `json:"service,omitempty"`
}

// control answers requests inside the machine. The socket's file mode and
// directory keep everybody but root out.
type control struct {
	reaper  *reaper
	service *service
	env     []string
}

func (c *control) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go c.handle(conn)
	}
}

func (c *control) handle(conn *net.UnixConn) {
	defer conn.Close()
	var req request
	files, err := receive(conn, &req)
	defer closeAll(files)
	if err != nil {
		return // the host has gone away
	}
	var ans answer
	switch req.Op {
	case "exec":
		ans = c.exec(conn, req, files)
	case "start":
		c.service.want(true)
	case "stop":
		c.service.stop()
	case "kill":
		c.service.kill(req.Stay)
	case "status":
	default:
		ans.Error = "unknown request " + req.Op
	}
	if req.Op != "exec" {
		s := c.service.snapshot()
		ans.Service = &s
	}
	_ = send(conn, ans, nil) // nobody to tell if the host has gone
}

// exec runs a command on the three files that came with the request. If the
// host goes away, the command's session is killed.
func (c *control) exec(conn *net.UnixConn, req request, files []*os.File) answer {
	if len(files) != 3 || len(req.Args) == 0 {
		return answer{Error: "exec needs a command and three files"}
	}
	dir := req.Dir
	if dir == "" {
		dir = "/"
	}
	pid, exit, err := c.reaper.start(req.Args, append(append([]string{}, c.env...), req.Env...), dir, files)
	if err != nil {
		return answer{Error: err.Error(), Code: startFailure(err)}
	}
	var ended atomic.Bool // then the pid may be another's
	go func() {
		for !ended.Load() {
			r := request{Op: "signal", Signal: int(syscall.SIGKILL)} // if the host has gone
			extra, err := receive(conn, &r)
			closeAll(extra)
			if r.Op == "signal" && !ended.Load() {
				_ = syscall.Kill(-pid, syscall.Signal(r.Signal)) // ESRCH if all is over
			}
			if err != nil {
				return
			}
		}
	}()
	status := <-exit
	ended.Store(true)
	return answer{Code: exitCode(status)}
}

// startFailure is the shell's code for a command that did not start.
func startFailure(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

func send(conn *net.UnixConn, message any, files []*os.File) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(text) > maxPacket {
		return fmt.Errorf("message of %d bytes: at most %d are possible", len(text), maxPacket)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = syscall.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(text, rights, nil)
	return err
}

func receive(conn *net.UnixConn, message any) ([]*os.File, error) {
	text, oob := make([]byte, maxPacket), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, err
	}
	files, err := openFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	return files, json.Unmarshal(text[:n], message)
}

func openFiles(oob []byte) ([]*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
