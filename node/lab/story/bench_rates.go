package story

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rateTime  = 3 * time.Second
	kvClients = 64
	kvWindows = 5
)

// writes lets 64 clients write through the three masters, several times: the same binary is half as fast again in
// one moment as in another where a virtual machine shares its processors.
func (b *Bench) writes(ctx context.Context) error {
	var rates []float64
	for range kvWindows {
		rate, err := b.writeRate(ctx)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	b.more("durable KV writes/s, three masters, 64 clients", "/s", rates[len(rates)/2], 5000, 15000,
		fmt.Sprintf("over HTTP, median of %d times, %.0f to %.0f; clients, masters and agents share the cores", len(rates), rates[0], rates[len(rates)-1]))
	return nil
}

func (b *Bench) writeRate(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rateTime)
	defer cancel()
	var done, failed atomic.Int64
	var first atomic.Pointer[error]
	var clients sync.WaitGroup
	masters := b.s.cluster.Masters()
	began := time.Now()
	for i := range kvClients {
		client, err := b.s.raw(ctx, masters[i%len(masters)].Name)
		if err != nil {
			return 0, err
		}
		clients.Go(func() {
			defer client.conn.Close()
			for n := 0; ctx.Err() == nil; n++ {
				if err := client.put(fmt.Sprintf("bench/%d/%d", i, n%100), "a value of an ordinary length"); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		})
	}
	clients.Wait()
	took := time.Since(began)
	if err := first.Load(); err != nil {
		return 0, fmt.Errorf("%d writes failed; the first: %w", failed.Load(), *err)
	}
	return float64(done.Load()) / took.Seconds(), nil
}

// dns asks one master as fast as it answers, and counts by the processor time
// that its process has used.
func (b *Bench) dns(ctx context.Context) error {
	if err := b.s.register(ctx, "bench-dns", 1); err != nil {
		return err
	}
	machine := b.s.cluster.Masters()[2].Name
	pid, err := b.s.hostPid(ctx, machine)
	if err != nil {
		return err
	}
	addr := net.JoinHostPort(b.s.addr(machine), "8600")
	err = await(ctx, stepTime, func(ctx context.Context) error {
		n, err := srvCount(ctx, b.s.addr(machine), "bench-dns")
		if err == nil && n == 0 {
			err = errors.New("the service is not known yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rateTime)
	defer cancel()
	used := cpuTime(pid)
	began := time.Now()
	var answers, wrong atomic.Int64
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { askDNS(ctx, addr, "bench-dns.service.consul", &answers, &wrong) })
	}
	clients.Wait()
	took := time.Since(began)
	if wrong.Load() > 0 || answers.Load() == 0 {
		return fmt.Errorf("%d answers, %d of them wrong", answers.Load(), wrong.Load())
	}
	cpu := cpuTime(pid) - used
	b.more("DNS answers/s per core", "/s", float64(answers.Load())/cpu.Seconds(), 50000, 100000,
		fmt.Sprintf("%.0f /s beside the asking program, per second of the node's processor time", float64(answers.Load())/took.Seconds()))
	return nil
}

// window is how many questions one client has under way.
const window = 64

// askDNS keeps a window of questions open until ctx ends.
func askDNS(ctx context.Context, addr, name string, answers, wrong *atomic.Int64) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		wrong.Add(1)
		return
	}
	defer conn.Close()
	q := question(name)
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		for i := range window {
			binary.BigEndian.PutUint16(q, uint16(i))
			if _, err := conn.Write(q); err != nil {
				wrong.Add(1)
				return
			}
		}
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a lost datagram costs that
		for range window {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			if good := n > 12 && buf[3]&0xf == 0 && binary.BigEndian.Uint16(buf[6:]) == 1; !good {
				wrong.Add(1)
			}
			answers.Add(1)
		}
	}
}

// question is a DNS query for an A record (RFC 1035, section 4.1).
func question(name string) []byte {
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // recursion desired, one question
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// cpuTime is the processor time that a process has used, from /proc/PID/stat
// in the kernel's ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(f) <= stime {
		return 0
	}
	u, _ := strconv.ParseInt(f[utime], 10, 64)
	k, _ := strconv.ParseInt(f[stime], 10, 64)
	return time.Duration(u+k) * 10 * time.Millisecond
}

// register puts a service of no task into the catalog.
func (s *Story) register(ctx context.Context, service string, port int) error {
	body, err := json.Marshal(map[string]any{"Node": "outside", "Address": "192.0.2.1",
		"Service": map[string]any{"Service": service, "Port": port, "Address": "192.0.2.1"}})
	if err != nil {
		return err
	}
	_, err = s.api(s.cluster.Masters()[0].Name).do(ctx, http.MethodPut, "/v1/catalog/register", string(body))
	return err
}

// catalog changes a service and waits until every machine's DNS tells the
// change.
func (b *Bench) catalog(ctx context.Context) error {
	var acked, asked []time.Duration
	for i := range benchChanges {
		port := 10000 + i
		began := time.Now()
		if err := b.s.register(ctx, "bench-catalog", port); err != nil {
			return err
		}
		committed := time.Now()
		err := b.s.everyDNS(ctx, "bench-catalog", uint16(port))
		if err != nil {
			return err
		}
		asked, acked = append(asked, time.Since(began)), append(acked, time.Since(committed))
	}
	b.less("catalog change -> every DNS, p99", "s", quantile(acked, 0.99), 0.25, 0.05,
		fmt.Sprintf("from the acknowledged commit, all seven; %.0f ms from the request; the proxies read the same table", quantile(asked, 0.99)*1000))
	return nil
}

func (s *Story) everyDNS(ctx context.Context, service string, port uint16) error {
	var wg sync.WaitGroup
	failures := make([]error, len(s.cluster.Machines))
	for i, m := range s.cluster.Machines {
		wg.Go(func() {
			r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(m.Address.String(), "8600"))
			}}
			limit, cancel := context.WithTimeout(ctx, stepTime)
			defer cancel()
			for {
				_, list, err := r.LookupSRV(limit, "", "", service+".service.consul.")
				if err == nil && len(list) == 1 && list[0].Port == port {
					return
				}
				if limit.Err() != nil {
					failures[i] = fmt.Errorf("%s does not tell port %d: %v", m.Name, port, list)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}
