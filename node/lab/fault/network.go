package fault

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// tableName is of ours only: whatever is in it may be removed.
	tableName = "appliance_chaos"
	// minRate lets a heartbeat through now and then.
	minRate = 1000
	// queueTime is how long a frame may wait in the slow link's queue.
	queueTime = 400 * time.Millisecond
)

// network replaces the table of the packet filter, in one transaction. It is
// at the interface itself (family netdev), below all protocols: containers,
// ARP and VRRP are cut, too.
func (m Machine) network(live []Fault, now time.Time) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
	wanted := slices.ContainsFunc(live, func(f Fault) bool { return f.Kind == Cut || f.Kind == Loss || f.Kind == SlowLink })
	if !wanted && !tableThere(conn) {
		return nil
	}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	if wanted {
		conn.AddTable(table)
		in := m.chain(conn, table, "in", nftables.ChainHookIngress)
		out := m.chain(conn, table, "out", nftables.ChainHookEgress)
		for _, f := range live {
			if err := rules(conn, table, in, out, f, now); err != nil {
				return err
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables at %s: %w: the kernel needs nf_tables with ingress and egress hooks", m.Link, err)
	}
	return nil
}

func tableThere(conn *nftables.Conn) bool {
	t, err := conn.ListTableOfFamily(tableName, nftables.TableFamilyNetdev)
	return err == nil && t != nil
}

func (m Machine) chain(conn *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	return conn.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: nftables.ChainPriorityFilter, Device: m.Link})
}

func rules(conn *nftables.Conn, t *nftables.Table, in, out *nftables.Chain, f Fault, now time.Time) error {
	drop := func(c *nftables.Chain, exprs ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: append(exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	const destination, source = 0, 6 // in an Ethernet header
	switch f.Kind {
	case Cut:
		for _, side := range []struct {
			chain  *nftables.Chain
			offset uint32
			name   string
			list   []string
		}{{in, source, "i" + f.ID, f.In}, {out, destination, "o" + f.ID, f.Out}} {
			if len(side.list) == 0 {
				continue
			}
			set, err := addresses(conn, t, side.name, side.list, f.Until.Sub(now))
			if err != nil {
				return err
			}
			drop(side.chain, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: side.offset, Len: 6},
				&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
		}
	case Loss:
		drop(in, Chance(f.Percent)...)
		drop(out, Chance(f.Percent)...)
	case SlowLink: // what is sent waits in a queue, see rate
		drop(in, &expr.Limit{Type: expr.LimitTypePktBytes, Rate: f.Rate, Unit: expr.LimitTimeSecond, Over: true, Burst: uint32(max(f.Rate/4, 16<<10))})
	}
	return nil
}

// addresses makes a set whose elements the kernel removes at the deadline,
// should nobody else.
func addresses(conn *nftables.Conn, t *nftables.Table, name string, list []string, left time.Duration) (*nftables.Set, error) {
	set := &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeEtherAddr, HasTimeout: true}
	var elements []nftables.SetElement
	for _, text := range list {
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("%q is no hardware address", text)
		}
		elements = append(elements, nftables.SetElement{Key: mac, Timeout: left + time.Second})
	}
	return set, conn.AddSet(set, elements)
}

// Chance is true for that many percent of the frames, in steps of 0.01.
func Chance(percent float64) []expr.Any {
	const steps = 10_000
	limit := uint32(math.Round(percent * steps / 100))
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: steps, Type: unix.NFT_NG_RANDOM},
		// The generator's number is in host order; comparison is bytewise.
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(limit)},
	}
}

// drops is what the table has dropped since it was made anew.
func (m Machine) drops() (n uint64) {
	conn, err := nftables.New()
	if err != nil || !tableThere(conn) {
		return 0
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
	for _, name := range []string{"in", "out"} {
		list, _ := conn.GetRules(t, &nftables.Chain{Name: name, Table: t})
		for _, r := range list {
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					n += c.Packets
				}
			}
		}
	}
	return n
}

// queued is how many frames the slow link's queue has delayed or dropped.
func (m Machine) queued() (n uint64) {
	link, err := netlink.LinkByName(m.Link)
	if err != nil {
		return 0
	}
	list, _ := netlink.QdiscList(link)
	for _, q := range list {
		if st := q.Attrs().Statistics; st != nil && st.Queue != nil && q.Attrs().Handle == netlink.MakeHandle(queueHandle, 0) {
			n += uint64(st.Queue.Overlimits) + uint64(st.Queue.Drops)
		}
	}
	return n
}

// rate sets the queue of the slowest slow link, or removes ours.
func (m Machine) rate(live []Fault) error {
	var rate uint64
	for _, f := range live {
		if f.Kind == SlowLink && (rate == 0 || f.Rate < rate) {
			rate = f.Rate
		}
	}
	link, err := netlink.LinkByName(m.Link)
	if err != nil {
		if rate == 0 && errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		return fmt.Errorf("link %s: %w", m.Link, err)
	}
	if rate == 0 {
		return m.noQueue(link)
	}
	const burst = 16 << 10
	q := &netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(queueHandle, 0), Parent: netlink.HANDLE_ROOT},
		Rate: rate, Limit: uint32(float64(rate)*queueTime.Seconds()) + burst, Buffer: uint32(float64(burst) / float64(rate) * 1e6 * ticks)}
	if err := netlink.QdiscReplace(q); err != nil {
		return fmt.Errorf("queue of %s: %w: the kernel needs the TBF qdisc", m.Link, err)
	}
	return nil
}

const (
	queueHandle = 0xca05 // of ours only
	// ticks of the packet scheduler in a microsecond (psched.h: 64 ns each).
	ticks = 15.625
)

func (m Machine) noQueue(link netlink.Link) error {
	list, err := netlink.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range list {
		if q.Attrs().Handle == netlink.MakeHandle(queueHandle, 0) {
			return netlink.QdiscDel(q)
		}
	}
	return nil
}
