// Command program is the conformance suite's image: package app as a process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"appliance/node/runtime/runtimetest/app"
)

func main() {
	in, out := make(chan os.Signal, 8), make(chan syscall.Signal, 8)
	signal.Notify(in, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range in {
			out <- s.(syscall.Signal)
		}
	}()
	os.Exit(app.Main(context.Background(), &app.Proc{Args: os.Args[1:], Env: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: out}))
}
