package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"appliance/discovery"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	optSize    = 11 // an OPT record without options (RFC 6891, section 6.1.2)
	// maxPacked bounds what one socket keeps in bytes, because anybody may ask
	// for any name in any mixture of cases.
	maxPacked = 1 << 20
	// packedCost is what an entry takes beside its bytes, about.
	packedCost = 200
)

// packed keeps answers in wire format, for one content of the catalog: most
// questions are those of a moment ago. It knows only answers that no recursor
// has a part in. It belongs to one goroutine.
type packed struct {
	s       *Server
	index   uint64 // of the table that the answers come from
	answers map[string]*tail
	size    int
}

// tail is what follows the question in an answer.
type tail struct {
	raw    []byte
	counts [6]byte // of answers, authorities and additional records
	rcode  byte
	unit   int   // size of one address record where raw is a list of such; else 0
	second int64 // it holds only during this second of the clock; 0: always
}

// answer writes the answer to the question raw into out, which has room for
// maxUDP bytes. It gives nil for what must be answered in the long way. t must
// have been current after raw was received; now is in seconds.
func (p *packed) answer(out, raw []byte, t *discovery.Table, now int64) []byte {
	end := questionEnd(raw)
	limit, do, ok := clientSize(raw, end)
	if !ok {
		return nil
	}
	found := p.find(raw[headerSize:end], t, now)
	if found == nil {
		return nil
	}
	body, n := found.raw, binary.BigEndian.Uint16(found.counts[:])
	room, cut := limit-end, byte(0)
	if found.unit > 0 {
		if k := room / found.unit; k < int(n) {
			n, cut = uint16(k), 0x02
		}
		body = shuffled(body, found.unit, int(n))
	} else if len(body) > room {
		return nil
	}
	out = append(out[:0], raw[:end]...)
	out[2] = 0x84 | cut | raw[2]&0x01 // an answer with authority; RD as asked
	out[3] = raw[3]&0x10 | found.rcode
	if len(p.s.cfg.Recursors) > 0 {
		out[3] |= 0x80
	}
	copy(out[6:], found.counts[:])
	binary.BigEndian.PutUint16(out[6:], n)
	out = append(out, body...)
	if len(raw) > end {
		out[11]++ // found.counts leave room for it
		out = append(out, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, 0, 0, do, 0, 0, 0)
	}
	return out
}

// questionEnd is where the question of a plain query ends: one question, no
// other record than perhaps one OPT, no flags that ask for anything special. 0
// if raw is something else.
func questionEnd(raw []byte) int {
	if len(raw) < headerSize || raw[2]&^0x01 != 0 || raw[3]&^0x30 != 0 ||
		[7]byte(raw[4:11]) != [7]byte{0, 1} || raw[11] > 1 {
		return 0
	}
	at := headerSize
	for at < len(raw) && raw[at] != 0 {
		if raw[at] > 63 {
			return 0
		}
		at += 1 + int(raw[at])
	}
	at += 1 + 4
	if at > len(raw) || at > headerSize+255+4 || raw[at-2] != 0 || raw[at-1] != dns.ClassINET {
		return 0
	}
	return at
}

// clientSize reads the OPT record after the question, if there is one: how
// long the answer may be without its own OPT, and the DO flag. ok is false if
// there is anything else.
func clientSize(raw []byte, end int) (limit int, do byte, ok bool) {
	if end == 0 || len(raw) != end+optSize*int(raw[11]) {
		return 0, 0, false
	}
	if len(raw) == end {
		return dns.MinMsgSize, 0, true
	}
	opt := raw[end:]
	if opt[0] != 0 || opt[1] != 0 || opt[2] != byte(dns.TypeOPT) || opt[5] != 0 || opt[6] != 0 || opt[9] != 0 || opt[10] != 0 {
		return 0, 0, false
	}
	size := int(binary.BigEndian.Uint16(opt[3:]))
	return min(max(size, dns.MinMsgSize), maxUDP) - optSize, opt[7] & 0x80, true
}

// shuffled brings n of the list's records to its front, each choice and order
// as likely as any other, whatever the order was before.
func shuffled(list []byte, unit, n int) []byte {
	var swap [32]byte
	total := len(list) / unit
	for i := range n {
		j := i + rand.IntN(total-i)
		if i == j {
			continue
		}
		a, b := list[i*unit:(i+1)*unit], list[j*unit:(j+1)*unit]
		copy(swap[:], a)
		copy(a, b)
		copy(b, swap[:unit])
	}
	return list[:n*unit]
}

// find gives the rest of the answer to a question, nil if it is not known.
func (p *packed) find(question []byte, t *discovery.Table, now int64) *tail {
	if p.answers == nil || p.index != t.Index || p.size > maxPacked {
		p.answers, p.index, p.size = map[string]*tail{}, t.Index, 0
	}
	found, ok := p.answers[string(question)]
	if ok && (found == nil || found.second == 0 || found.second == now) {
		return found
	}
	made := p.s.tail(question, t, now)
	p.answers[string(question)] = made
	if !ok {
		p.size += packedCost + len(question)
		if made != nil {
			p.size += len(made.raw)
		}
	}
	return made
}

// tail makes the rest of the answer to a question. It gives nil if the answer
// depends on a recursor or on chance (other than the order of addresses), or
// is not in the zone.
func (s *Server) tail(question []byte, t *discovery.Table, now int64) *tail {
	req := new(dns.Msg) // does not ask for recursion, so nothing here waits for it
	req.Question = make([]dns.Question, 1)
	raw := append(make([]byte, headerSize), question...)
	name, _, err := dns.UnpackDomainName(raw, headerSize)
	if err != nil {
		return nil
	}
	kind := raw[len(raw)-4:]
	req.Question[0] = dns.Question{Name: name, Qtype: binary.BigEndian.Uint16(kind), Qclass: dns.ClassINET}
	if refuse(req) != nil {
		return nil
	}
	prefix, ours := s.inZone(strings.ToLower(name))
	if !ours {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(req)
	m.Compress = true
	s.zoneAt(m, req.Question[0], prefix, t)
	return pack(m, len(raw), now)
}

// pack gives what follows the question in m, which ends at end.
func pack(m *dns.Msg, end int, now int64) *tail {
	for _, rr := range m.Answer {
		if rr.Header().Rrtype == dns.TypeCNAME {
			return nil // chosen by chance, or to be followed
		}
	}
	raw, err := m.Pack()
	if err != nil || len(raw) < end {
		return nil
	}
	out := &tail{raw: raw[end:], counts: [6]byte(raw[6:headerSize]), rcode: raw[3] & 0x0f}
	if len(m.Ns) == 0 && len(m.Extra) == 0 {
		out.unit = unit(out.raw, len(m.Answer))
	}
	if out.unit == 0 && (len(m.Answer) > 1 || len(m.Ns) > 1 || len(m.Extra) > 200) {
		return nil
	}
	for _, rr := range append(m.Ns, m.Answer...) {
		if rr.Header().Rrtype == dns.TypeSOA {
			out.second = max(now, 1) // the serial number is the clock
		}
	}
	return out
}

// unit is the size of the n records in list if all are addresses of the name
// in the question and of one family, so that they may stand in any order; else
// 0.
func unit(list []byte, n int) int {
	if n == 0 {
		return 0
	}
	size := len(list) / n
	if size*n != len(list) || size != 16 && size != 28 {
		return 0
	}
	for at := 0; at < len(list); at += size {
		rr := list[at:]
		kind := binary.BigEndian.Uint16(rr[2:])
		if rr[0] != 0xc0 || rr[1] != headerSize || int(rr[11]) != size-12 || rr[10] != 0 || kind != dns.TypeA && kind != dns.TypeAAAA {
			return 0
		}
	}
	return size
}
