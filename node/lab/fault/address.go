package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// homeFile tells, while the machine has another address, what its own one is.
const homeFile = "home"

// Move is a machine's way from one address to another.
type Move struct {
	From   netip.Prefix `json:"from"`
	To     netip.Prefix `json:"to"`
	Router netip.Addr   `json:"router"` // the default route goes with the address
}

func (mv Move) back() Move { return Move{From: mv.To, To: mv.From, Router: mv.Router} }

// Make makes the move at the link. It is fine to make it twice.
func (mv Move) Make(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	had, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range had {
		if a.IP.Equal(mv.From.Addr().AsSlice()) {
			if err := h.AddrDel(link, &a); err != nil {
				return fmt.Errorf("take address %s from %s: %w", mv.From, name, err)
			}
		}
	}
	ip := &net.IPNet{IP: mv.To.Addr().AsSlice(), Mask: net.CIDRMask(mv.To.Bits(), mv.To.Addr().BitLen())}
	if err := h.AddrReplace(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("address %s on %s: %w", mv.To, name, err)
	}
	if err := h.RouteReplace(&netlink.Route{Gw: net.IP(mv.Router.AsSlice())}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// moved is the move that is in force or was not taken back, nil if there is none.
func (m Machine) moved() (*Move, error) {
	var mv Move
	switch err := read(filepath.Join(m.Dir, homeFile), &mv); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &mv, nil
}

// address gives the machine the address of the fault in force, or its own.
// The move is on disk before it is made, so that it is always taken back.
func (m Machine) address(live []Fault) error {
	made, err := m.moved()
	if err != nil {
		return err
	}
	var wanted *Move
	for _, f := range live {
		if f.Kind == Address {
			wanted = f.Move
		}
	}
	path := filepath.Join(m.Dir, homeFile)
	switch {
	case wanted != nil && made == nil:
		if err := write(path, wanted); err != nil {
			return err
		}
		return wanted.make(m.Link)
	case wanted == nil && made != nil:
		if err := made.back().make(m.Link); err != nil {
			return err // the file stays: the sweep tries again
		}
		return os.Remove(path)
	case wanted != nil && *wanted != *made:
		return fmt.Errorf("the machine has the address %s of another fault: heal it first", made.To)
	}
	return nil
}

func (mv Move) make(link string) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	return mv.Make(h, link)
}

func (mv *Move) check() error {
	if mv == nil || !mv.From.IsValid() || !mv.To.IsValid() || !mv.Router.IsValid() || mv.From == mv.To ||
		mv.From.Masked() != mv.To.Masked() || !mv.From.Contains(mv.Router) {
		return fmt.Errorf("a change of address needs the old one, the new one and a router, all of one network")
	}
	return nil
}
