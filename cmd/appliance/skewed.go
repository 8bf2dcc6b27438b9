//go:build skewed

package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"appliance/node/lab/fault"
)

// The test build's service follows the offset that a fault has written. It
// compiles only with the overlay of node/lab/skew.
func init() {
	version += "-" + fault.SkewedMark
	if len(os.Args) < 2 || os.Args[1] != "run" {
		return // keepers of faults need the right time
	}
	skew() // before anybody looks at the clock
	go func() {
		for ; ; time.Sleep(50 * time.Millisecond) {
			skew()
		}
	}()
}

func skew() {
	text, _ := os.ReadFile("/run/appliance/chaos/" + fault.ClockFile) // none: the clock is right
	ns, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	time.SetSkew(ns)
}
