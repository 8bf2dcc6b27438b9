package dns

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// batchSize is how many datagrams one system call takes or sends at most.
const batchSize = 32

// batchConn is a UDP socket that answers by itself what packed knows, many
// datagrams per system call. ReadFrom gives the other questions to the server
// that it is for. One goroutine reads, any write.
type batchConn struct {
	*net.UDPConn
	s        *Server
	batch    batcher
	packed   packed
	in, out  []ipv4.Message
	deferred []*ipv4.Message // of in, to be given by ReadFrom
}

// batcher is implemented by ipv4.PacketConn and ipv6.PacketConn, whose
// messages are one type.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

func (s *Server) batched(conn *net.UDPConn) *batchConn {
	c := &batchConn{UDPConn: conn, s: s, packed: packed{s: s}, in: messages(), out: messages()}
	c.batch = ipv4.NewPacketConn(conn)
	if conn.LocalAddr().(*net.UDPAddr).IP.To4() == nil {
		c.batch = ipv6.NewPacketConn(conn)
	}
	return c
}

func messages() []ipv4.Message {
	ms := make([]ipv4.Message, batchSize)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, maxUDP)}
	}
	return ms
}

// ReadFrom reads the next question that is not answered here.
func (c *batchConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for len(c.deferred) == 0 {
		n, err := c.batch.ReadBatch(c.in, 0)
		if err != nil {
			return 0, nil, err
		}
		c.send(c.answer(c.in[:n]))
	}
	m := c.deferred[0]
	c.deferred = c.deferred[1:]
	return copy(p, m.Buffers[0][:m.N]), m.Addr, nil
}

// answer gives the answers to what came, and notes in deferred what it cannot
// answer. The table is read after the questions: an answer is never older than
// its question.
func (c *batchConn) answer(in []ipv4.Message) []ipv4.Message {
	t, now := c.s.cfg.Catalog.Current(), c.s.cfg.Now().Unix()
	c.deferred = c.deferred[:0]
	k := 0
	for i := range in {
		m, o := &in[i], &c.out[k]
		buf := o.Buffers[0][:maxUDP]
		if a := c.packed.answer(buf, m.Buffers[0][:m.N], t, now); a != nil {
			o.Buffers[0], o.Addr = a, m.Addr
			k++
		} else {
			c.deferred = append(c.deferred, m)
		}
	}
	return c.out[:k]
}

// send sends answers. One that cannot be sent is lost, as any datagram may be.
func (c *batchConn) send(out []ipv4.Message) {
	for len(out) > 0 {
		n, err := c.batch.WriteBatch(out, 0)
		if err != nil {
			n = max(n, 0)
			c.s.cfg.Log.Debug("DNS answer was not sent", "to", out[n].Addr, "err", err)
			n++
		}
		out = out[max(n, 1):]
	}
}
