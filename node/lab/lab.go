package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"appliance/vagrant"
)

const (
	// DefaultDir holds a lab's state, logs and the machines' disks.
	DefaultDir = "/var/lib/appliance-lab"
	// DefaultName is the prefix of what the host can see: link and groups.
	DefaultName = "applab"
	// binaryDir is where a machine finds the binary, as after provisioning.
	binaryDir = "/usr/local/bin"
	binary    = "appliance"
	dataDir   = "/var/lib/appliance"
	runDir    = "/run/appliance"
)

var (
	// ErrUp says that the lab runs already.
	ErrUp = errors.New("the lab is up already: 'appliance lab status' shows it, 'appliance lab down' removes it")
	// ErrDown says that there is no lab at the directory.
	ErrDown = errors.New("no lab is up: start one with 'appliance lab up'")
)

// Options say where and what a lab runs. The zero value is usable.
type Options struct {
	Dir     string       // default DefaultDir
	Name    string       // default DefaultName; labs side by side need different names and networks
	Binary  string       // the executable the machines get; default this one
	Service []string     // command of the supervised service; default "/usr/local/bin/appliance run"
	Env     []string     // additional environment of all in the machines, "KEY=value"
	Lying   bool         // the data directories are on disks that can be made full, slow or hung
	Log     *slog.Logger `json:"-"`
}

var labName = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if !labName.MatchString(o.Name) {
		return o, fmt.Errorf("lab name %q: use up to 12 of a-z and 0-9", o.Name)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.Service) == 0 {
		o.Service = []string{filepath.Join(binaryDir, binary), "run"}
	}
	var err error
	if o.Binary == "" {
		o.Binary, err = os.Executable()
	}
	if err == nil {
		o.Dir, err = filepath.Abs(o.Dir)
	}
	return o, err
}

// Lab is a handle on a running lab. Several processes may hold handles at
// once; a method takes the lab's lock while it changes something. Methods are
// safe for concurrent use.
type Lab struct {
	dir string
	log *slog.Logger
}

// Open returns a handle on the lab at dir (default DefaultDir), which another
// process may have started. It returns ErrDown if there is none.
func Open(dir string, log *slog.Logger) (*Lab, error) {
	o, err := Options{Dir: dir, Log: log}.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: o.Dir, log: o.Log}
	s, err := l.state()
	if err != nil {
		return nil, err
	}
	if !s.Switch.alive() {
		return nil, ErrDown
	}
	return l, nil
}

// Dir is the lab's directory on the host.
func (l *Lab) Dir() string { return l.dir }

// APISocket is the host's path of the machine's API socket.
func (l *Lab) APISocket(machine string) string {
	return filepath.Join(l.dir, machine, "run", "api.sock")
}

// LogFile is the host's path of the output of the machine's service.
func (l *Lab) LogFile(machine string) string { return filepath.Join(l.dir, machine, "log") }

// DataDir is the host's path of the machine's data directory.
func (l *Lab) DataDir(machine string) string { return filepath.Join(l.dir, machine, "data") }

// Cluster returns the description that the lab was started from.
func (l *Lab) Cluster() (vagrant.Cluster, error) {
	s, err := l.state()
	return s.Cluster, err
}
