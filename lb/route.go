package lb

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Route sends requests of one host and path prefix to a service.
type Route struct {
	// Host is an exact name ("app-test"), a wildcard for the labels below a
	// name ("*.example.com"), or "*" for every host. Case and port are ignored.
	Host string `json:"host"`
	// PathPrefix matches whole segments: "/api" takes /api and /api/x, not
	// /apix. Empty is "/".
	PathPrefix string  `json:"pathPrefix,omitempty"`
	Service    string  `json:"service"`
	Options    Options `json:"options,omitzero"`
}

// Options tune one route. The zero value is right for most.
type Options struct {
	StripPrefix bool `json:"stripPrefix,omitempty"` // remove PathPrefix before forwarding
	H2C         bool `json:"h2c,omitempty"`         // speak HTTP/2 without TLS to backends (gRPC)
	RedirectTLS bool `json:"redirectTLS,omitempty"` // answer plain HTTP with 308 to https
	// ResponseTimeout bounds the wait for a response head; zero is
	// DefaultResponseTimeout. Bodies may take as long as they move.
	ResponseTimeout time.Duration `json:"responseTimeout,omitempty"`
	MaxBodyBytes    int64         `json:"maxBodyBytes,omitempty"` // request body; 0 is no limit
	// ShowBackend adds X-Appliance-Backend with the task id to responses.
	ShowBackend bool `json:"showBackend,omitempty"`
}

// DefaultResponseTimeout is the wait for a response head, as nginx has it.
const DefaultResponseTimeout = 60 * time.Second

// A Backend is one instance of a service.
type Backend struct {
	ID      string `json:"id"`   // task id, unique within a table
	Addr    string `json:"addr"` // "ip:port"
	Release string `json:"release"`
	Weight  int    `json:"weight,omitempty"` // share of requests; 0 is 1
	Node    string `json:"node,omitempty"`
	// Draining backends get no new requests; those in flight finish.
	Draining bool `json:"draining,omitempty"`
}

// A Service is a named set of backends.
type Service struct {
	Name     string    `json:"name"`
	Backends []Backend `json:"backends"`
	// Cause is shown on the 503 page while there is no backend to ask, for
	// example "3 instances are starting".
	Cause string `json:"cause,omitempty"`
}

// maxWeight keeps the round-robin schedule of a service small.
const maxWeight = 1000

func (r *Route) normalize() error {
	host := cleanHost(r.Host)
	if host == "" {
		return fmt.Errorf("route to %q: no host: name one, or \"*\" for all", r.Service)
	}
	if rest := strings.TrimPrefix(host, "*."); host != "*" && strings.Contains(rest, "*") {
		return fmt.Errorf("route host %q: a wildcard is \"*\" or \"*.name\"", r.Host)
	}
	if r.Service == "" {
		return fmt.Errorf("route %s%s: no service named", r.Host, r.PathPrefix)
	}
	if r.PathPrefix != "" && r.PathPrefix[0] != '/' {
		return fmt.Errorf("route %s: path prefix %q must start with /", r.Host, r.PathPrefix)
	}
	if r.Options.ResponseTimeout < 0 || r.Options.MaxBodyBytes < 0 {
		return fmt.Errorf("route %s%s: negative limit", r.Host, r.PathPrefix)
	}
	r.Host = host
	r.PathPrefix = strings.TrimRight(r.PathPrefix, "/")
	if r.Options.ResponseTimeout == 0 {
		r.Options.ResponseTimeout = DefaultResponseTimeout
	}
	return nil
}

func (b *Backend) normalize(service string) error {
	if b.ID == "" {
		return fmt.Errorf("service %s: backend %s has no task id", service, b.Addr)
	}
	ap, err := netip.ParseAddrPort(b.Addr)
	if err != nil || ap.Port() == 0 {
		return fmt.Errorf("service %s: backend %s: address %q is not ip:port", service, b.ID, b.Addr)
	}
	if b.Weight < 0 || b.Weight > maxWeight {
		return fmt.Errorf("service %s: backend %s: weight %d is not within 0..%d", service, b.ID, b.Weight, maxWeight)
	}
	b.Weight = max(b.Weight, 1)
	return nil
}

// cleanHost lowers a Host header value and drops its port and final dot.
func cleanHost(h string) string {
	if strings.HasPrefix(h, "[") { // IPv6 literal
		if end := strings.IndexByte(h, ']'); end > 0 {
			h = h[1:end]
		}
	} else if i := strings.IndexByte(h, ':'); i >= 0 && strings.IndexByte(h[i+1:], ':') < 0 {
		h = h[:i]
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}
