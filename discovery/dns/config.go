package dns

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"appliance/discovery"

	"github.com/miekg/dns"
)

// Limits.
const (
	maxAddresses = 4096 // A or AAAA records of one answer
	maxServices  = 1024 // SRV records of one answer
	// maxUDP is the largest UDP answer: it fits into any IPv6 path unfragmented
	// (DNS flag day 2020), whatever the client offers.
	maxUDP      = 1232
	maxTCPConns = 1024
	// maxForwards bounds the questions that wait for recursors.
	maxForwards      = 512
	recursorTimeout  = 2 * time.Second
	tcpReadTimeout   = 2 * time.Second
	tcpIdleTimeout   = 8 * time.Second
	shutdownTimeout  = 2 * time.Second
	defaultTTL       = time.Second
	defaultNodeTTL   = 5 * time.Second
	defaultNegative  = time.Second
	maxCNAMEsRecurse = 3
)

// Catalog gives the current table; *discovery.Watcher is one.
type Catalog interface{ Current() *discovery.Table }

// Config is what a Server answers from.
type Config struct {
	Catalog    Catalog
	Addrs      []string // listen on UDP and TCP of each, "ip:port"
	Domain     string   // zone, default "consul"
	Datacenter string   // default "dc1"

	// Hosts resolves the host names of routes, in lower case without trailing
	// dot, such as app-test, to the VIP. ok is false for a name it does not
	// know. May be nil.
	Hosts func(name string) (addrs []netip.Addr, ok bool)
	// Recursors ("ip:port" or "ip") get what is not ours, in this order. With
	// none such questions are refused.
	Recursors []string

	OnlyPassing bool // drop endpoints with warnings too
	ServiceTTL  time.Duration
	NodeTTL     time.Duration
	NegativeTTL time.Duration

	Log     *slog.Logger
	Now     func() time.Time
	Shuffle func(n int, swap func(i, j int))
}

func (c *Config) defaults() {
	set(&c.Domain, "consul")
	set(&c.Datacenter, "dc1")
	set(&c.ServiceTTL, defaultTTL)
	set(&c.NodeTTL, defaultNodeTTL)
	set(&c.NegativeTTL, defaultNegative)
	c.Domain = dns.Fqdn(strings.ToLower(strings.TrimPrefix(c.Domain, ".")))
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Shuffle == nil {
		c.Shuffle = rand.Shuffle
	}
}

func set[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
