package lb

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkProxy compares with net/http's ReverseProxy, tuned, in front of the
// same backend in the same run. Read cpu-us/op: it holds backend and client too,
// so "direct" is what to take off. Compare ratios, not numbers of other machines.
func BenchmarkProxy(b *testing.B) {
	for _, size := range []int{128, 16 << 10, 1 << 20} {
		body := make([]byte, size)
		be, _ := backend(b, "a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.Write(body)
		})
		in := startIngress(b, Server{})
		in.route(b, Options{}, be)
		std := httptest.NewServer(tunedReverseProxy(be.Addr))
		b.Cleanup(std.Close)
		for _, c := range []struct{ name, addr string }{
			{"direct", be.Addr}, {"appliance", in.addr}, {"ReverseProxy", std.Listener.Addr().String()},
		} {
			b.Run(strconv.Itoa(size)+"/"+c.name, func(b *testing.B) { drive(b, c.addr, size) })
		}
	}
}

func tunedReverseProxy(addr string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.SetXForwarded()
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
		BufferPool: pooled{},
	}
}

type pooled struct{}

func (pooled) Get() []byte  { return *buffers.Get().(*[]byte) }
func (pooled) Put(b []byte) { buffers.Put(&b) }

// drive sends requests over raw keep-alive connections, as cheap as a client
// can be.
func drive(b *testing.B, addr string, size int) {
	const clients = 32
	work := make(chan struct{}, clients)
	var wg sync.WaitGroup
	for range clients {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			buf := make([]byte, 64<<10)
			for range work {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
				if err := skip(c, buf, size); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// skip reads one response: a head, and size bytes.
func skip(c net.Conn, buf []byte, size int) error {
	have, head := 0, -1
	for head < 0 || have < head+size {
		at := 0
		if head < 0 {
			at = have
		}
		n, err := c.Read(buf[at:])
		if err != nil {
			return err
		}
		have += n
		for i := 0; head < 0 && i+4 <= have; i++ {
			if string(buf[i:i+4]) == "\r\n\r\n" {
				head = i + 4
			}
		}
	}
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
