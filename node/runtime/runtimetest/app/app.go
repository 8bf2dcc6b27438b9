// Package app is the program inside the conformance suite's image: each
// command shows one thing that a container runtime must get right. The fake
// driver runs it as a function, the others as a static binary.
package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Proc is the process as the program sees it.
type Proc struct {
	Args           []string // without the program's own name
	Env            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan syscall.Signal
}

type command func(ctx context.Context, p *Proc, args []string) int

var commands map[string]command

func init() {
	commands = map[string]command{
		"exit": exit, "run": run, "stubborn": stubborn, "signals": signals, "env": env, "say": say, "lines": lines,
		"write": write, "read": read, "hog": hog, "spin": spin, "listen": listen, "dial": dial, "cat": cat, "hostname": hostname,
		"id": id, "later": later,
	}
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, p *Proc) int {
	if len(p.Args) == 0 {
		return run(ctx, p, nil)
	}
	c, ok := commands[p.Args[0]]
	if !ok {
		fmt.Fprintln(p.Stderr, "unknown command", p.Args[0])
		return 127
	}
	return c(ctx, p, p.Args[1:])
}

func number(args []string, i int) int {
	if i >= len(args) {
		return 0
	}
	n, _ := strconv.Atoi(args[i])
	return n
}

func exit(_ context.Context, _ *Proc, args []string) int { return number(args, 0) }

// later exits with a code after so many milliseconds.
func later(ctx context.Context, _ *Proc, args []string) int {
	select {
	case <-ctx.Done():
		return 137
	case <-time.After(time.Duration(number(args, 0)) * time.Millisecond):
		return number(args, 1)
	}
}

// run waits for SIGTERM and leaves politely.
func run(ctx context.Context, p *Proc, _ []string) int {
	fmt.Fprintln(p.Stdout, "ready")
	for {
		select {
		case <-ctx.Done():
			return 137
		case s := <-p.Signals:
			if s == syscall.SIGTERM {
				fmt.Fprintln(p.Stdout, "bye")
				return 0
			}
		}
	}
}

// stubborn ignores everything but SIGKILL.
func stubborn(ctx context.Context, p *Proc, _ []string) int {
	fmt.Fprintln(p.Stdout, "ready")
	for {
		select {
		case <-ctx.Done():
			return 137
		case s := <-p.Signals:
			fmt.Fprintln(p.Stdout, "ignored", int(s))
		}
	}
}

// signals tells what it gets and exits 5 on SIGUSR2.
func signals(ctx context.Context, p *Proc, _ []string) int {
	fmt.Fprintln(p.Stdout, "ready")
	for {
		select {
		case <-ctx.Done():
			return 137
		case s := <-p.Signals:
			fmt.Fprintln(p.Stdout, "got", int(s))
			if s == syscall.SIGUSR2 {
				return 5
			}
		}
	}
}

func env(_ context.Context, p *Proc, args []string) int {
	for _, name := range args {
		value := "(unset)"
		for _, kv := range p.Env {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				value = v // the last one wins, as in execve
			}
		}
		fmt.Fprintf(p.Stdout, "%s=%s\n", name, value)
	}
	return 0
}

func say(_ context.Context, p *Proc, args []string) int {
	fmt.Fprintln(p.Stdout, args[0])
	fmt.Fprintln(p.Stderr, args[1])
	return 0
}

// lines writes n lines, a pause apart.
func lines(ctx context.Context, p *Proc, args []string) int {
	for i := range number(args, 0) {
		fmt.Fprintln(p.Stdout, "line", i)
		select {
		case <-ctx.Done():
			return 137
		case <-time.After(time.Duration(number(args, 1)) * time.Millisecond):
		}
	}
	return 0
}

func write(_ context.Context, p *Proc, args []string) int {
	if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	return 0
}

func read(_ context.Context, p *Proc, args []string) int {
	b, err := os.ReadFile(args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	_, _ = p.Stdout.Write(b)
	return 0
}

// hog touches so many megabytes and stays.
func hog(ctx context.Context, p *Proc, args []string) int {
	var keep [][]byte
	for range number(args, 0) {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
	code := run(ctx, p, nil)
	return code + len(keep)*0
}

// spin burns a core for so many milliseconds of wall time and prints the CPU
// milliseconds it got.
func spin(_ context.Context, p *Proc, args []string) int {
	end := time.Now().Add(time.Duration(number(args, 0)) * time.Millisecond)
	for n := 0; time.Now().Before(end); n++ {
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 1
	}
	fmt.Fprintln(p.Stdout, (u.Utime.Nano()+u.Stime.Nano())/int64(time.Millisecond))
	return 0
}

// listen answers each connection with a greeting and the peer's address.
func listen(ctx context.Context, p *Proc, args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "hello %s\n", c.RemoteAddr())
			c.Close()
		}
	}()
	defer l.Close()
	return run(ctx, p, nil)
}

func dial(_ context.Context, p *Proc, args []string) int {
	c, err := net.DialTimeout("tcp", args[0], 2*time.Second)
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	fmt.Fprint(p.Stdout, s)
	return 0
}

func cat(_ context.Context, p *Proc, _ []string) int {
	if _, err := io.Copy(p.Stdout, p.Stdin); err != nil {
		return 1
	}
	return 0
}

func hostname(_ context.Context, p *Proc, _ []string) int {
	h, err := os.Hostname()
	if err != nil {
		return 1
	}
	fmt.Fprintln(p.Stdout, h)
	return 0
}

func id(_ context.Context, p *Proc, _ []string) int {
	fmt.Fprintf(p.Stdout, "%d:%d\n", os.Getuid(), os.Getgid())
	return 0
}
