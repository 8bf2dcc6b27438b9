package dns

import (
	"net"

	"github.com/miekg/dns"
)

// recurse asks the recursors in turn. m is the prepared reply of ours.
func (s *Server) recurse(req, m *dns.Msg, udp bool) *dns.Msg {
	if len(s.cfg.Recursors) == 0 {
		m.Rcode = dns.RcodeRefused
		if req.Question[0].Qtype == dns.TypePTR {
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, s.soa())
		}
		finish(req, m, udp)
		return m
	}
	answer := s.ask(req, udp)
	if answer == nil {
		m.Rcode = dns.RcodeServerFailure
		finish(req, m, udp)
		return m
	}
	answer.Id = req.Id
	answer.RecursionAvailable = true
	answer.Compress = true
	if udp {
		size := dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
		}
		answer.Truncate(size)
	}
	return answer
}

// ask forwards a question; nil if no recursor gives a usable answer in time or
// too many questions wait already.
func (s *Server) ask(req *dns.Msg, udp bool) *dns.Msg {
	select {
	case s.forwards <- struct{}{}:
		defer func() { <-s.forwards }()
	default:
		return nil
	}
	network := "tcp"
	if udp {
		network = "udp"
	}
	client := dns.Client{Net: network, Timeout: recursorTimeout, UDPSize: maxUDP}
	for _, addr := range s.cfg.Recursors {
		answer, _, err := client.Exchange(req, addr)
		if err == nil && answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
			return answer
		}
	}
	return nil
}

// chase resolves the target of a CNAME of ours: in the zone, among the hosts
// of routes, or by the recursors.
func (s *Server) chase(name string, qtype uint16) []dns.RR {
	req := new(dns.Msg)
	req.SetQuestion(name, qtype)
	if _, ours := s.inZone(dns.CanonicalName(name)); ours {
		req.RecursionDesired = false // so that a name in our zone cannot lead round and round
		return s.Answer(req, false).Answer
	}
	if len(s.cfg.Recursors) == 0 {
		return nil
	}
	answer := s.ask(req, true)
	if answer == nil || len(answer.Answer) > maxCNAMEsRecurse+maxAddresses {
		return nil
	}
	return answer.Answer
}

// withPort adds port 53 to a recursor that is given without.
func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, "53")
}
