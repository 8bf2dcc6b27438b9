package dns

import (
	"encoding/hex"
	"net/netip"
	"strings"
)

// kind is what a name asks for.
type kind int

const (
	kindNone    kind = iota // in the zone, but no form that exists
	kindApex                // the zone itself
	kindNS                  // ns.<zone>
	kindService             // also <name>.query
	kindNode
	kindAddr
)

// lookup is a parsed name of the zone.
type lookup struct {
	kind kind
	name string // service or node, lower case
	tag  string // lower case; may contain dots
	addr netip.Addr
	dc   string // empty: this one
}

// parse reads the labels in front of the zone: "web.service", "v1.web.service.dc1",
// "_web._tcp", "ms1.node", "0a000001.addr". prefix is lower case without a
// trailing dot.
func parse(prefix string) lookup {
	if prefix == "" {
		return lookup{kind: kindApex}
	}
	if prefix == "ns" {
		return lookup{kind: kindNS}
	}
	labels := strings.Split(prefix, ".")
	n := len(labels)
	if l := parseForm(labels[:n-1], labels[n-1]); l.kind != kindNone {
		return l
	}
	if n >= 2 {
		if l := parseForm(labels[:n-2], labels[n-2]); l.kind != kindNone {
			l.dc = labels[n-1]
			return l
		}
	}
	if rfc2782(labels) {
		return service(labels)
	}
	if n >= 1 && rfc2782(labels[:n-1]) {
		l := service(labels[:n-1])
		l.dc = labels[n-1]
		return l
	}
	return lookup{}
}

func parseForm(rest []string, form string) lookup {
	for _, label := range rest {
		if label == "" {
			return lookup{}
		}
	}
	if len(rest) == 0 {
		return lookup{}
	}
	switch form {
	case "service", "query":
		return service(rest)
	case "node":
		return lookup{kind: kindNode, name: strings.Join(rest, ".")}
	case "addr":
		return address(rest)
	}
	return lookup{}
}

func rfc2782(labels []string) bool {
	return len(labels) == 2 && len(labels[0]) > 1 && labels[0][0] == '_' && len(labels[1]) > 1 && labels[1][0] == '_'
}

// service reads [tag.]name, where the tag may contain dots, or _name._tag,
// where _tcp is no tag.
func service(labels []string) lookup {
	if rfc2782(labels) {
		l := lookup{kind: kindService, name: labels[0][1:], tag: labels[1][1:]}
		if l.tag == "tcp" {
			l.tag = ""
		}
		return l
	}
	last := len(labels) - 1
	return lookup{kind: kindService, name: labels[last], tag: strings.Join(labels[:last], ".")}
}

func address(labels []string) lookup {
	if len(labels) != 1 {
		return lookup{}
	}
	raw, err := hex.DecodeString(labels[0])
	if err != nil {
		return lookup{}
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return lookup{}
	}
	return lookup{kind: kindAddr, addr: addr}
}

// reverse reads the name of a PTR question; ok is false for any other name.
func reverse(name string) (addr netip.Addr, ok bool) {
	if host, found := strings.CutSuffix(name, ".in-addr.arpa"); found {
		parts := strings.Split(host, ".")
		if len(parts) != 4 {
			return addr, false
		}
		addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return addr, err == nil
	}
	host, found := strings.CutSuffix(name, ".ip6.arpa")
	if !found || len(host) != 63 {
		return addr, false
	}
	digits := make([]byte, 0, 32)
	for i := 62; i >= 0; i -= 2 {
		digits = append(digits, host[i])
		if i > 0 && host[i-1] != '.' {
			return addr, false
		}
	}
	raw, err := hex.DecodeString(string(digits))
	if err != nil {
		return addr, false
	}
	return netip.AddrFromSlice(raw)
}
