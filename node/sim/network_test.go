package sim

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// Faults of the network, seen from the other end of a stream. What is written there before the fault, and after it,
// arrives in a millisecond.
func TestStreamsUnderFaults(t *testing.T) {
	const soon, never = 2 * time.Millisecond, time.Second
	cut := func(n *Network, down bool) { n.Cut("m1", "m2", down) }
	for name, c := range map[string]struct {
		fault    func(n *Network)
		from, to time.Duration // when the other end reads what is written then; 0, 0: not in a second
		err      error         // or what it reads instead
		mend     func(n *Network)
	}{
		"nothing":          {fault: func(*Network) {}, to: soon},
		"broken":           {fault: func(n *Network) { cut(n, true) }, mend: func(n *Network) { cut(n, false) }},
		"broken elsewhere": {fault: func(n *Network) { n.Cut("m1", "m3", true) }, to: soon},
		"broken backwards": {fault: func(n *Network) { n.Cut("m2", "m1", true) }, to: soon},
		"sender paused":    {fault: func(n *Network) { n.Pause("m1", true) }, mend: func(n *Network) { n.Pause("m1", false) }},
		"receiver paused":  {fault: func(n *Network) { n.Pause("m2", true) }, mend: func(n *Network) { n.Pause("m2", false) }},
		"slow":             {fault: func(n *Network) { n.Slow("m1", "m2", 60*time.Millisecond) }, from: 30 * time.Millisecond, to: never},
		"reset":            {fault: func(n *Network) { n.Reset("m2", "m1") }, err: syscall.ECONNRESET},
		"killed":           {fault: func(n *Network) { n.Stop("m1", true) }, err: syscall.ECONNRESET},
		"without power":    {fault: func(n *Network) { n.Stop("m1", false) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func() {
				n := NewNetwork(1)
				ln := n.Boot("m2").Listen("x")
				n.Boot("m3")
				out, err := n.Boot("m1").Dial(context.Background(), "m2:7600", "x")
				if err != nil {
					t.Fatal(err)
				}
				in, _ := ln.Accept()
				read := func() (time.Duration, error) {
					begin := time.Now()
					in.SetReadDeadline(begin.Add(never))
					_, err := io.ReadFull(in, make([]byte, 1))
					return time.Since(begin), err
				}
				c.fault(n)
				out.Write([]byte{1})
				took, err := read()
				switch want := c.err; {
				case want == nil && c.to == 0:
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("read after %v: %v, want nothing", took, err)
					}
				case !errors.Is(err, want) || want == nil && (took < c.from || took > c.to):
					t.Errorf("read after %v: %v, want %v between %v and %v", took, err, want, c.from, c.to)
				}
				if c.mend != nil {
					c.mend(n)
					if took, err := read(); err != nil || took > retransmit {
						t.Errorf("read %v after it was mended: %v", took, err)
					}
				}
			})
		})
	}
}

// Faults of the network, seen by who receives 400 packets.
func TestPacketsUnderFaults(t *testing.T) {
	const sent = 400
	for name, c := range map[string]struct {
		fault                func(n *Network)
		arrive, twice, swaps [2]int // from, to
	}{
		"nothing":        {func(*Network) {}, [2]int{390, 400}, [2]int{0, 10}, [2]int{0, 20}},
		"lossy":          {func(n *Network) { n.Lose("m1", 0.3, 0) }, [2]int{230, 330}, [2]int{0, 20}, [2]int{30, 200}},
		"lossy receiver": {func(n *Network) { n.Lose("m2", 0.3, 0) }, [2]int{230, 330}, [2]int{0, 20}, [2]int{30, 200}},
		"doubling":       {func(n *Network) { n.Lose("m1", 0, 0.2) }, [2]int{390, 400}, [2]int{45, 120}, [2]int{0, 20}},
		"broken":         {func(n *Network) { n.Cut("m1", "m2", true) }, [2]int{}, [2]int{}, [2]int{}},
		"sender paused":  {func(n *Network) { n.Pause("m1", true) }, [2]int{}, [2]int{}, [2]int{}},
		"receiver paused": {func(n *Network) {
			n.Pause("m2", true)
			time.AfterFunc(100*time.Second, func() { n.Pause("m2", false) })
		}, [2]int{390, 400}, [2]int{0, 10}, [2]int{0, 20}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func() {
				n := NewNetwork(1)
				from, to := n.Boot("m1").Gossip(), n.Boot("m2").Gossip()
				defer func() { from.Shutdown(); to.Shutdown() }()
				c.fault(n)
				for i := range sent {
					from.WriteTo([]byte{byte(i >> 8), byte(i)}, gossipAddr("m2"))
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(200 * time.Second)
				got, swaps, last := map[int]int{}, 0, -1
				for len(to.PacketCh()) > 0 {
					b := (<-to.PacketCh()).Buf
					i := int(b[0])<<8 | int(b[1])
					got[i]++
					if i < last {
						swaps++
					}
					last = max(last, i)
				}
				twice := 0
				for _, n := range got {
					twice += n - 1
				}
				for what, x := range map[string]struct {
					got  int
					want [2]int
				}{"arrive": {len(got), c.arrive}, "arrive twice": {twice, c.twice}, "are overtaken": {swaps, c.swaps}} {
					if x.got < x.want[0] || x.got > x.want[1] {
						t.Errorf("%d %s, want %d to %d", x.got, what, x.want[0], x.want[1])
					}
				}
			})
		})
	}
}
