package fault

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// service answers as one whose clock is off and whose address is addr.
func service(t *testing.T, off time.Duration, addr string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fault") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		fmt.Fprintf(w, `{"node":"ms1","nodes":[{"name":"mm1","addr":"192.0.2.9"},{"name":"ms1","addr":%q}]}`, addr)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket
}

func TestEffectOnTheService(t *testing.T) {
	move := &Move{From: netip.MustParsePrefix("192.0.2.1/24"), To: netip.MustParsePrefix("192.0.2.9/24"), Router: netip.MustParseAddr("192.0.2.254")}
	clock := func(off time.Duration) Fault { return Fault{Kind: Clock, Offset: off} }
	for _, tt := range []struct {
		name  string
		off   time.Duration // of the service's clock
		addr  string
		fault Fault
		want  uint64
	}{
		{"a clock ahead", 2 * time.Minute, "", clock(2 * time.Minute), 1},
		{"a clock behind", -time.Minute, "", clock(-time.Minute), 1},
		{"a clock that is right all the same", 0, "", clock(time.Minute), 0},
		{"one that is off the other way", time.Minute, "", clock(-time.Minute), 0},
		{"an offset that no Date shows", 0, "", clock(time.Second), 0},
		{"the new address", 0, "192.0.2.9", Fault{Kind: Address, Move: move}, 1},
		{"the old address", 0, "192.0.2.1", Fault{Kind: Address, Move: move}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := Machine{Dir: t.TempDir(), Link: "lo", API: service(t, tt.off, tt.addr)}
			f := tt.fault
			f.ID, f.Until, f.Began = "a", time.Now().Add(time.Minute), time.Now()
			if err := write(filepath.Join(m.Dir, "a.json"), f); err != nil {
				t.Fatal(err)
			}
			if m.shows(t.Context(), f) {
				if err := m.seen(f); err != nil {
					t.Fatal(err)
				}
			}
			var now Fault
			if err := read(filepath.Join(m.Dir, "a.json"), &now); err != nil {
				t.Fatal(err)
			}
			if got := m.hits(now); got != tt.want || now.Kind != f.Kind || !now.Until.Equal(f.Until) {
				t.Errorf("%d hits of %+v, want %d", got, now, tt.want)
			}
		})
	}
	t.Run("a service that is down", func(t *testing.T) {
		m := Machine{Dir: t.TempDir(), API: filepath.Join(t.TempDir(), "none")}
		if m.shows(t.Context(), clock(time.Minute)) {
			t.Error("it shows a fault")
		}
		if err := m.seen(Fault{ID: "over"}); err != nil {
			t.Error(err)
		}
		if list, err := List(m.Dir); err != nil || len(list) > 0 {
			t.Errorf("a fault that is over is there again: %v, %v", list, err)
		}
	})
}
