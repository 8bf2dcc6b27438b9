package dns

import (
	"net/netip"
	"strings"

	"appliance/discovery"

	"github.com/miekg/dns"
)

// Answer answers one question. udp tells the transport, which bounds the size.
// It blocks only for names that recursors must resolve.
func (s *Server) Answer(req *dns.Msg, udp bool) *dns.Msg {
	if refused := refuse(req); refused != nil {
		return refused
	}
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	m := new(dns.Msg)
	m.SetReply(req)
	m.Compress = true
	m.RecursionAvailable = len(s.cfg.Recursors) > 0
	switch prefix, ours := s.inZone(name); {
	case ours:
		m.Authoritative = true
		s.zoneAt(m, q, prefix, s.cfg.Catalog.Current())
	case s.host(m, q, name):
		m.Authoritative = true
	case q.Qtype == dns.TypePTR && s.pointer(m, q, name):
		m.Authoritative = true
	default:
		return s.recurse(req, m, udp)
	}
	finish(req, m, udp)
	return m
}

// refuse answers what is no proper question, nil if it is one.
func refuse(req *dns.Msg) *dns.Msg {
	code := -1
	opt := req.IsEdns0()
	switch {
	case len(req.Question) != 1:
		code = dns.RcodeFormatError
	case req.Opcode != dns.OpcodeQuery, req.Question[0].Qtype == dns.TypeAXFR, req.Question[0].Qtype == dns.TypeIXFR:
		code = dns.RcodeNotImplemented
	case req.Question[0].Qclass != dns.ClassINET && req.Question[0].Qclass != dns.ClassANY:
		code = dns.RcodeRefused
	case opt != nil && opt.Version() != 0:
		code = dns.RcodeBadVers
	}
	if code < 0 {
		return nil
	}
	m := new(dns.Msg)
	m.SetRcode(req, code)
	if opt != nil {
		m.SetEdns0(maxUDP, false)
	}
	return m
}

// inZone gives what stands in front of the zone.
func (s *Server) inZone(name string) (prefix string, ours bool) {
	if name == s.cfg.Domain {
		return "", true
	}
	return strings.CutSuffix(name, "."+s.cfg.Domain)
}

// zoneAt answers what is in the zone by the table t.
func (s *Server) zoneAt(m *dns.Msg, q dns.Question, prefix string, t *discovery.Table) {
	l := parse(prefix)
	known := l.kind != kindNone && (l.dc == "" || strings.EqualFold(l.dc, s.cfg.Datacenter))
	if known {
		switch l.kind {
		case kindApex:
			s.apex(m, q, t)
		case kindNS:
			s.nameserver(m, q, t)
		case kindService:
			known = s.service(m, q, t, l)
		case kindNode:
			known = s.node(m, q, t, l.name)
		case kindAddr:
			m.Answer = addressRR(q, q.Name, l.addr, s.cfg.NodeTTL)
		}
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, s.soa())
	}
}

func (s *Server) apex(m *dns.Msg, q dns.Question, t *discovery.Table) {
	if q.Qtype == dns.TypeSOA || q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, s.soa())
	}
	if q.Qtype == dns.TypeNS || q.Qtype == dns.TypeANY || q.Qtype == dns.TypeSOA {
		ns, glue := s.nameservers(t)
		if q.Qtype == dns.TypeSOA {
			m.Ns = ns
		} else {
			m.Answer = append(m.Answer, ns...)
		}
		m.Extra = append(m.Extra, glue...)
	}
}

// maxNS is how many masters are named as name servers.
const maxNS = 3

func (s *Server) nameservers(t *discovery.Table) (ns, glue []dns.RR) {
	masters := append([]*discovery.Endpoint(nil), t.Service("consul").Offered()...)
	s.cfg.Shuffle(len(masters), func(i, j int) { masters[i], masters[j] = masters[j], masters[i] })
	for _, e := range masters[:min(maxNS, len(masters))] {
		name := s.nodeName(e.Node)
		ns = append(ns, &dns.NS{Hdr: header(s.cfg.Domain, dns.TypeNS, s.cfg.NodeTTL), Ns: name})
		glue = append(glue, anyAddress(name, e.Addr, s.cfg.NodeTTL)...)
	}
	return ns, glue
}

// nameserver resolves the name in the SOA to the masters.
func (s *Server) nameserver(m *dns.Msg, q dns.Question, t *discovery.Table) {
	for _, e := range t.Service("consul").Offered() {
		if addr, err := netip.ParseAddr(e.Addr); err == nil {
			m.Answer = append(m.Answer, addressRR(q, q.Name, addr, s.cfg.NodeTTL)...)
		}
	}
}

func (s *Server) node(m *dns.Msg, q dns.Question, t *discovery.Table, name string) bool {
	n := s.view(t).node(t, name)
	if n == nil {
		return false
	}
	m.Answer = s.addressOrName(m, q, n.Addr, s.cfg.NodeTTL)
	switch q.Qtype {
	case dns.TypeTXT, dns.TypeANY:
		m.Answer = append(m.Answer, metaTXT(q.Name, n, s.cfg.NodeTTL)...)
	}
	return true
}

// host answers the host names of routes.
func (s *Server) host(m *dns.Msg, q dns.Question, name string) bool {
	if s.cfg.Hosts == nil {
		return false
	}
	addrs, ok := s.cfg.Hosts(strings.TrimSuffix(name, "."))
	if !ok {
		return false
	}
	for _, addr := range addrs {
		m.Answer = append(m.Answer, addressRR(q, q.Name, addr, s.cfg.NodeTTL)...)
	}
	return true
}

// pointer answers reverse names that belong to a node or, failing that, to a
// service.
func (s *Server) pointer(m *dns.Msg, q dns.Question, name string) bool {
	addr, ok := reverse(strings.TrimSuffix(name, "."))
	if !ok {
		return false
	}
	t := s.cfg.Catalog.Current()
	target := s.view(t).byAddr[addr]
	if target.node != "" {
		target.node = s.nodeName(target.node)
	} else if target.service != "" {
		target.node = dns.Fqdn(strings.ToLower(target.service) + ".service." + s.cfg.Domain)
	}
	if target.node == "" {
		return false
	}
	m.Answer = append(m.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR, s.cfg.NodeTTL), Ptr: target.node})
	return true
}

// finish bounds the answer by what the transport and the client take, sets TC
// when anything was left out, and answers EDNS.
func finish(req, m *dns.Msg, udp bool) {
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if opt := req.IsEdns0(); opt != nil {
		if udp {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
		}
		m.SetEdns0(maxUDP, opt.Do())
		echoSubnet(opt, m.IsEdns0())
	}
	m.Truncate(size)
}

// echoSubnet answers a client-subnet option (RFC 7871) with scope 0: the
// answer is the same for everybody.
func echoSubnet(asked, answer *dns.OPT) {
	for _, o := range asked.Option {
		if subnet, ok := o.(*dns.EDNS0_SUBNET); ok {
			echo := *subnet
			echo.SourceScope = 0
			answer.Option = append(answer.Option, &echo)
		}
	}
}
