package vip

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func addrs(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestPacketRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name     string
		src, dst netip.Addr
		a        Advert
	}{
		{"v4", netip.MustParseAddr("192.168.56.11"), Group4, Advert{7, 200, 100 * time.Millisecond, addrs("192.168.56.100")}},
		{"v4 two", netip.MustParseAddr("10.0.0.1"), Group4, Advert{255, 0, maxAdvert, addrs("10.0.0.2", "10.0.0.3")}},
		{"v6", netip.MustParseAddr("fe80::1"), Group6, Advert{1, 255, 10 * time.Millisecond, addrs("fe80::2", "fd00::1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.a.Marshal(c.src, c.dst)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(b, c.src, c.dst)
			if err != nil || !reflect.DeepEqual(got, c.a) {
				t.Errorf("got %+v, %v", got, err)
			}
			b[2] ^= 1
			if _, err := Parse(b, c.src, c.dst); !errors.Is(err, ErrPacket) {
				t.Errorf("a damaged packet passed: %v", err)
			}
		})
	}
}

func TestChecksumKnownAnswer(t *testing.T) {
	src := netip.MustParseAddr("10.77.0.1")
	b, err := Advert{51, 100, time.Second, addrs("10.77.0.100")}.Marshal(src, Group4)
	if err != nil {
		t.Fatal(err)
	}
	// Pseudo-header 0a4d 0001 e000 0012 0070 000c, message 3133
	// 6401 0064 0000 0a4d 0064: together 18b25, folded 8b26, inverted 74d9.
	want := []byte{0x31, 51, 100, 1, 0, 100, 0x74, 0xd9, 10, 77, 0, 100}
	if !reflect.DeepEqual(b, want) {
		t.Errorf("got % x, want % x", b, want)
	}
}

func FuzzParse(f *testing.F) {
	src4, src6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1")
	s4, _ := Advert{1, 100, time.Second, addrs("10.0.0.2")}.Marshal(src4, Group4)
	s6, _ := Advert{1, 100, time.Second, addrs("fe80::2", "fd00::2")}.Marshal(src6, Group6)
	f.Add(s4, true)
	f.Add(s6, false)
	f.Add([]byte{}, true)
	f.Add([]byte{0x31, 1, 1, 255, 0, 1, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, v4 bool) {
		src, dst := src6, Group6
		if v4 {
			src, dst = src4, Group4
		}
		a, err := Parse(b, src, dst)
		if err != nil {
			if !errors.Is(err, ErrPacket) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := a.Marshal(src, dst)
		if err != nil {
			t.Fatalf("accepted %+v, which cannot be written: %v", a, err)
		}
		if got, err := Parse(again, src, dst); err != nil || !reflect.DeepEqual(got, a) {
			t.Fatalf("%+v became %+v, %v", a, got, err)
		}
	})
}
