package dns

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"appliance/discovery"

	"github.com/miekg/dns"
)

func header(name string, typ uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: seconds(ttl)}
}

// soa is also what says "no such name", for as long as its TTL.
func (s *Server) soa() dns.RR {
	return &dns.SOA{
		Hdr: header(s.cfg.Domain, dns.TypeSOA, s.cfg.NegativeTTL),
		Ns:  "ns." + s.cfg.Domain, Mbox: "hostmaster." + s.cfg.Domain,
		Serial: uint32(s.cfg.Now().Unix()), Refresh: 3600, Retry: 600, Expire: 86400,
		Minttl: seconds(s.cfg.NegativeTTL),
	}
}

func (s *Server) nodeName(node string) string {
	return strings.ToLower(node) + ".node." + s.cfg.Datacenter + "." + s.cfg.Domain
}

// addressRR is the record of an address if the question asks for its family.
func addressRR(q dns.Question, name string, addr netip.Addr, ttl time.Duration) []dns.RR {
	addr = addr.Unmap()
	switch {
	case addr.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
		return []dns.RR{&dns.A{Hdr: header(name, dns.TypeA, ttl), A: addr.AsSlice()}}
	case addr.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
		return []dns.RR{&dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: addr.AsSlice()}}
	}
	return nil
}

// anyAddress is the record of an address of either family; none for a name.
func anyAddress(name, addr string, ttl time.Duration) []dns.RR {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil
	}
	return addressRR(dns.Question{Qtype: dns.TypeANY}, name, ip, ttl)
}

// addressOrName is the address, or for a name a CNAME with what the recursors
// know of it.
func (s *Server) addressOrName(m *dns.Msg, q dns.Question, addr string, ttl time.Duration) []dns.RR {
	if ip, err := netip.ParseAddr(addr); err == nil {
		return addressRR(q, q.Name, ip, ttl)
	}
	if _, ok := dns.IsDomainName(addr); !ok || addr == "" {
		return nil
	}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeCNAME:
	default:
		return nil
	}
	rrs := []dns.RR{&dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME, ttl), Target: dns.Fqdn(addr)}}
	if q.Qtype != dns.TypeCNAME && m.RecursionDesired {
		rrs = append(rrs, s.chase(dns.Fqdn(addr), q.Qtype)...)
	}
	return rrs
}

// metaTXT shows a node's metadata as RFC 1464 says; "rfc1035-" keys hold the
// text as it is.
func metaTXT(name string, n *discovery.Node, ttl time.Duration) []dns.RR {
	keys := make([]string, 0, len(n.Meta))
	for k := range n.Meta {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out []dns.RR
	for _, k := range keys {
		text := n.Meta[k]
		if !strings.HasPrefix(strings.ToLower(k), "rfc1035-") {
			text = strings.NewReplacer("`", "``", "=", "`=").Replace(k) + "=" + text
		}
		out = append(out, &dns.TXT{Hdr: header(name, dns.TypeTXT, ttl), Txt: chunks(text)})
	}
	return out
}

// chunks cuts a text into strings of at most 255 bytes.
func chunks(s string) []string {
	var out []string
	for len(s) > 255 {
		out, s = append(out, s[:255]), s[255:]
	}
	return append(out, s)
}

// service answers for a service. It reports whether the name exists: with a
// tag that nobody has, or without an endpoint to offer, it does not.
func (s *Server) service(m *dns.Msg, q dns.Question, t *discovery.Table, l lookup) bool {
	svc := t.Find(l.name)
	if svc == nil {
		return false
	}
	eps := s.choose(svc.Offered(), l.tag)
	if len(eps) == 0 {
		return false
	}
	switch q.Qtype {
	case dns.TypeSRV:
		s.srv(m, q, t, eps)
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		s.addresses(m, q, eps)
		if q.Qtype == dns.TypeANY {
			s.srv(m, q, t, eps)
		}
	}
	return true
}

// choose filters and shuffles; the table's slice is left alone.
func (s *Server) choose(offered []*discovery.Endpoint, tag string) []*discovery.Endpoint {
	eps := make([]*discovery.Endpoint, 0, len(offered))
	for _, e := range offered {
		if (tag == "" || hasTag(e.Tags, tag)) && (!s.cfg.OnlyPassing || e.Status == discovery.Passing) {
			eps = append(eps, e)
		}
	}
	s.cfg.Shuffle(len(eps), func(i, j int) { eps[i], eps[j] = eps[j], eps[i] })
	return eps
}

func hasTag(tags []string, tag string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return strings.EqualFold(t, tag) })
}

// addresses answers each address once, however many endpoints share it. Of
// endpoints whose address is a name only one is given: a name may have one
// CNAME and nothing beside it.
func (s *Server) addresses(m *dns.Msg, q dns.Question, eps []*discovery.Endpoint) {
	seen := make(map[string]bool, len(eps))
	for _, e := range eps {
		if seen[e.Addr] || len(m.Answer) >= maxAddresses {
			continue
		}
		seen[e.Addr] = true
		if ip, err := netip.ParseAddr(e.Addr); err == nil {
			m.Answer = append(m.Answer, addressRR(q, q.Name, ip, s.cfg.ServiceTTL)...)
		}
	}
	for _, e := range eps {
		if len(m.Answer) == 0 {
			m.Answer = s.addressOrName(m, q, e.Addr, s.cfg.ServiceTTL)
		}
	}
}

// srv answers with ports, and with the addresses of the targets beside.
func (s *Server) srv(m *dns.Msg, q dns.Question, t *discovery.Table, eps []*discovery.Endpoint) {
	extra := map[string]bool{}
	for _, e := range eps[:min(len(eps), maxServices)] {
		target, n := s.target(t, e)
		weight := e.Weights[0]
		if e.Status == discovery.Warning {
			weight = e.Weights[1]
		}
		m.Answer = append(m.Answer, &dns.SRV{
			Hdr: header(q.Name, dns.TypeSRV, s.cfg.ServiceTTL), Priority: 1, Weight: uint16(weight), Port: uint16(e.Port), Target: target,
		})
		if extra[target] {
			continue
		}
		extra[target] = true
		m.Extra = append(m.Extra, anyAddress(target, e.Addr, s.cfg.ServiceTTL)...)
		if n != nil {
			m.Extra = append(m.Extra, metaTXT(target, n, s.cfg.ServiceTTL)...)
		}
	}
}

// target names an endpoint: its node, its own address in hexadecimal, or the
// name that it has for an address.
func (s *Server) target(t *discovery.Table, e *discovery.Endpoint) (string, *discovery.Node) {
	n := t.Node(e.Node)
	if n != nil && n.Addr == e.Addr {
		return s.nodeName(e.Node), n
	}
	ip, err := netip.ParseAddr(e.Addr)
	if err != nil {
		return dns.Fqdn(e.Addr), nil
	}
	return hex.EncodeToString(ip.Unmap().AsSlice()) + ".addr." + s.cfg.Datacenter + "." + s.cfg.Domain, nil
}
