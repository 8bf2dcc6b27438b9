// Package node is the process: it opens what a machine has on disk, starts
// the parts that its role needs, and connects them. Every part lives in its
// own package; this one holds only the wiring and the few rules that concern
// several parts at once.
package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft/durable"
)

// Default places. Both may be changed for tests; on a machine they are fixed,
// because the command line looks there.
const (
	DefaultData = "/var/lib/appliance"
	DefaultRun  = "/run/appliance"
)

// Config is what a node knows of itself. It is written once by init or join
// and changed by `appliance set` later; the cluster's own facts live in the
// log.
type Config struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Role       model.Role        `json:"role"`
	Advertise  string            `json:"advertise"` // IP address for other nodes
	Attributes map[string]string `json:"attributes,omitempty"`
	Masters    []string          `json:"masters"` // host:port as of the join; the log knows better later
	Runtime    string            `json:"runtime,omitempty"`
	Ingress    bool              `json:"ingress"`             // serve HTTP on port 80
	VIP        string            `json:"vip,omitempty"`       // address that this node may hold
	Interface  string            `json:"interface,omitempty"` // of the VIP; empty: that of Advertise
	DNS53      bool              `json:"dns53"`               // answer on port 53 too, if it is free
	CPUs       float64           `json:"cpus,omitempty"`      // offered to tasks; 0: all of the machine's
	MemoryMB   float64           `json:"memoryMB,omitempty"`
	Domain     string            `json:"domain,omitempty"`

	// Data and Run are the directories; set by the caller, not stored.
	Data string `json:"-"`
	Run  string `json:"-"`

	link string // the interface at which Detect has found Advertise
}

const configFile = "config.json"

// Load reads the configuration below data. The error tells a machine that is
// not part of a cluster what to do.
func Load(data, run string) (Config, error) {
	var c Config
	raw, err := readConfig(data)
	if errors.Is(err, fs.ErrNotExist) {
		return c, model.Errorf(model.CodeNotFound, "this machine is not part of a cluster").
			Because("%s has no %s", data, configFile).Try("run appliance init for a new cluster, or appliance join")
	}
	if err != nil {
		return c, err
	}
	c, err = parseConfig(raw)
	if err != nil {
		return c, model.Errorf(model.CodeInvalid, "%s cannot be used", filepath.Join(data, configFile)).Because("%v", err).
			Try("undo what was changed in it by hand, or start over: appliance leave --accept-risk=lose-local-data")
	}
	c.Data, c.Run = data, run
	return c, nil
}

func parseConfig(raw []byte) (c Config, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, err
	}
	return c, c.complete()
}

// readConfig reads the file and compares it with its second copy. A file that
// makes no sense is made again from the copy; one that does may have been
// changed on purpose, which is not ours to decide.
func readConfig(data string) ([]byte, error) {
	path, second, aside := Config{Data: data}.twice(configFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		body, copyErr := durable.ReadSealed(second)
		_, parseErr := parseConfig(raw)
		switch {
		case parseErr != nil && copyErr != nil:
			return raw, nil // the caller says what is wrong with it
		case parseErr == nil && copyErr == nil && !bytes.Equal(raw, body):
			return nil, model.Errorf(model.CodeInvalid, "%s is not what init or join has written", path).Because("it is damaged or was changed by hand").
				Try("if the change is right: rm %s; if not: rm %s, and the next start makes it again", second, path)
		}
	}
	return durable.ReadTwice(path, second, aside, nil)
}

// twice says where a small file and its second copy are, and where a damaged
// one is kept.
func (c Config) twice(name string) (path, second, aside string) {
	return c.dir(name), filepath.Join(c.dir(witnessDir), name), c.dir(damagedDir)
}

// complete checks what init and join have written.
func (c Config) complete() error {
	if c.ID == "" || c.Role != model.RoleMaster && c.Role != model.RoleAgent {
		return fmt.Errorf("id %q, role %q: a node has an id and is a master or an agent", c.ID, c.Role)
	}
	return c.validate()
}

// save writes the configuration and makes it durable.
func (c Config) save() error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if c.link != "" {
		if err := durable.Write(c.dir(foundFile), []byte(c.link)); err != nil {
			return err
		}
	}
	path, second, _ := c.twice(configFile)
	return durable.WriteTwice(path, second, append(raw, '\n'))
}

func (c Config) pki() pki.Dir { return pki.Dir(filepath.Join(c.Data, "pki")) }

func (c Config) dir(name string) string { return filepath.Join(c.Data, name) }

// wireAddr is where the other nodes reach this one.
func (c Config) wireAddr() string { return net.JoinHostPort(c.Advertise, strconv.Itoa(wire.Port)) }

func (c Config) validate() error {
	switch {
	case !validName(c.Name):
		return model.Errorf(model.CodeInvalid, "%q cannot be a node name", c.Name).Because("it becomes a DNS label").
			Try("use letters, digits and dashes with --name")
	case net.ParseIP(c.Advertise) == nil:
		return model.Errorf(model.CodeInvalid, "%q is not an address", c.Advertise).Try("give this machine's IP address with --advertise")
	case net.ParseIP(c.Advertise).IsUnspecified():
		return model.Errorf(model.CodeInvalid, "%s is not an address that others can reach", c.Advertise).Try("give this machine's own IP address with --advertise")
	case c.VIP != "" && net.ParseIP(c.VIP) == nil:
		return model.Errorf(model.CodeInvalid, "%q is not an address", c.VIP).Try("give a free IP address of the same network with --vip")
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-') {
			return false
		}
	}
	return true
}

// NeedRoot fails for everybody but root.
func NeedRoot() error {
	if os.Geteuid() != 0 {
		return model.Errorf(model.CodeDenied, "only root can make this machine a node").
			Because("it starts containers and serves port 80").Try("run it with sudo")
	}
	return nil
}

// claim makes the directories of a machine that is not part of a cluster yet.
// It fails without root and on a machine that already is.
func (c Config) claim() error {
	if err := NeedRoot(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.Data, configFile)); err == nil {
		return model.Errorf(model.CodeConflict, "this machine is already part of a cluster").
			Because("%s has a %s", c.Data, configFile).Try("to start over run: appliance leave")
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	return checkSpace(c.Data)
}

// Detect fills in what the user did not say: host name and address.
func (c *Config) Detect() error {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		c.Name = host
	}
	if c.Advertise == "" {
		addr, link, err := outbound()
		if err != nil {
			return model.Errorf(model.CodeInvalid, "cannot tell which address this machine has").Because("%v", err).Try("give it with --advertise")
		}
		c.Advertise, c.link = addr, link
	}
	return nil
}

// minFree is the free space below which a node refuses to start: the log and
// the state need room to stay durable.
const minFree = 64 << 20
