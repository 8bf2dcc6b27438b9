package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
)

// foundFile says that init or join found the node's address by themselves, at
// the interface that it names: then the node follows when that has another one.
const foundFile = "address.found"

// addressEvery is how often a node looks whether it still has its address.
const addressEvery = 2 * time.Second

// outbound is the only global unicast IPv4 address of the machine, and its
// interface; a machine with several must be told.
func outbound() (addr, link string, err error) {
	found, err := addresses("")
	if err != nil {
		return "", "", err
	}
	switch len(found) {
	case 0:
		return "", "", errors.New("no interface has an IPv4 address")
	case 1:
		for addr, link = range found {
			return addr, link, nil
		}
	}
	return "", "", fmt.Errorf("it has several: %v", names(found))
}

// addresses are the global unicast IPv4 addresses of an interface, or of all
// if link is empty, and the interface of each.
func addresses(link string) (map[string]string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || link != "" && l.Name != link {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
				out[n.IP.String()] = l.Name
			}
		}
	}
	return out, nil
}

func names(found map[string]string) []string {
	out := []string{}
	for addr := range found {
		out = append(out, addr)
	}
	slices.Sort(out)
	return out
}

// gone reports whether this machine does not have an address. Listening on it
// would tell less: some machines let anybody listen on any address.
func gone(addr string) bool {
	all, err := net.InterfaceAddrs()
	ip := net.ParseIP(addr)
	return err == nil && !slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && (n.IP.Equal(ip) || n.IP.IsLoopback() && n.Contains(ip))
	})
}

// follow gives the configuration the machine's new address, if the old one is
// gone, nobody had chosen it, and there is exactly one other at the interface
// where it was found.
func (c *Config) follow() error {
	if !gone(c.Advertise) {
		return nil
	}
	return c.move(addresses)
}

// move is follow once the address is gone; addresses are the machine's.
func (c *Config) move(addresses func(link string) (map[string]string, error)) error {
	all, err := addresses("")
	if err != nil {
		return err
	}
	delete(all, c.VIP)
	lost := model.Errorf(model.CodeUnavailable, "this machine does not have the address %s", c.Advertise).
		Because("its addresses are %s", strings.Join(names(all), " ")).Try("bring the address back, or name the new one: appliance set --advertise ADDRESS")
	link, err := os.ReadFile(c.dir(foundFile))
	if errors.Is(err, fs.ErrNotExist) {
		return lost // it was chosen
	}
	if err != nil {
		return err
	}
	here, err := addresses(string(link))
	if err != nil {
		return err
	}
	delete(here, c.VIP)
	if len(here) != 1 {
		return lost
	}
	c.Advertise = names(here)[0]
	return c.save()
}

// watchAddress ends the node when it has to start again with another address:
// because the configuration was changed, or because the machine has moved.
func (n *Node) watchAddress(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		pause(ctx, addressEvery)
		c, err := Load(n.cfg.Data, n.cfg.Run)
		if err != nil || ctx.Err() != nil {
			continue // it is being written, or the node is being removed
		}
		err = c.follow()
		if c.Advertise != n.cfg.Advertise || !slices.Equal(c.Masters, n.cfg.Masters) {
			return model.Errorf(model.CodeUnavailable, "this node starts again").
				Because("its address was %s and is %s now, or the masters that it asks first are others", n.cfg.Advertise, c.Advertise).Try("wait a moment")
		}
		if err != nil && !told {
			n.log.Error("others cannot reach this node", "err", err)
		}
		told = err != nil
		n.reportAddress(err)
	}
	return nil
}

// reportAddress tells the doctor whether others can reach this node.
func (n *Node) reportAddress(err error) {
	var lost *model.Error
	if !errors.As(err, &lost) {
		lost = &model.Error{}
	}
	n.watchdogs.down("this node's address", strings.TrimPrefix(lost.What+": "+lost.Why, ": "), lost.Fix)
}

// certifyAddress renews the node's certificate until it names its address.
func (n *Node) certifyAddress(ctx context.Context) {
	named := func() bool {
		return slices.ContainsFunc(n.keys.Leaf().Leaf.IPAddresses, net.ParseIP(n.cfg.Advertise).Equal)
	}
	for ctx.Err() == nil && !named() {
		if err := n.renewLeaf(ctx); err != nil {
			n.log.Debug("the certificate does not name the new address yet", "err", err)
		}
		if !named() {
			pause(ctx, addressEvery)
		}
	}
}

func (n *Node) renewLeaf(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := pki.NewRequest(rand.Reader)
	if err != nil {
		return err
	}
	chain, err := n.signLeaf(ctx, req.CSR)
	if err != nil {
		return err
	}
	return n.keys.Swap(chain, req.Key, time.Now(), n.cfg.pki().SaveNode)
}

// Changes are what Set changes; empty fields stay as they are.
type Changes struct {
	Advertise string
	Masters   []string // addresses of masters to ask first
}

// Set changes the configuration of the node below data. A node that runs
// notices, ends and is started again by its supervisor; runs tells of it.
func Set(data, run string, ch Changes) (c Config, runs bool, err error) {
	if c, err = Load(data, run); err != nil {
		return c, false, err
	}
	if ch.Advertise != "" {
		c.Advertise = ch.Advertise
	}
	if len(ch.Masters) > 0 {
		c.Masters = nil
		for _, m := range ch.Masters {
			c.Masters = append(c.Masters, withPort(m))
		}
	}
	if err := c.validate(); err != nil {
		return c, false, err
	}
	if ch.Advertise != "" && gone(c.Advertise) {
		return c, false, model.Errorf(model.CodeInvalid, "this machine does not have the address %s", c.Advertise).
			Because("nothing can listen on it").Try("give the machine the address first: ip addr add")
	}
	if ch.Advertise != "" { // it is chosen from now on
		if err := os.Remove(c.dir(foundFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return c, false, err
		}
	}
	if err := c.save(); err != nil {
		return c, false, err
	}
	lock, err := lockData(data)
	if err != nil {
		return c, true, nil
	}
	return c, false, lock.Close()
}
