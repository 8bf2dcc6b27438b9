package node

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"appliance/node/model"
	"appliance/node/runtime/containerd"
	"appliance/raft/durable"

	"golang.org/x/sys/unix"
)

// Leave removes what a node has put on this machine: containers, mounts, and
// its data with its copies of images and volumes. The node must have stopped.
// It may be repeated after a failure.
func Leave(data, run string) error {
	lock, err := lockData(data)
	if os.IsNotExist(err) {
		return model.Errorf(model.CodeNotFound, "this machine is not part of a cluster").Because("there is no %s", data)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := Load(data, run)
	if err == nil {
		if err := endContainers(c); err != nil {
			return err
		}
	}
	// The configuration goes first: a half-removed node must not start.
	path, second, _ := Config{Data: data}.twice(configFile)
	if err := durable.RemoveTwice(path, second); err != nil {
		return err
	}
	return removeData(data)
}

// endContainers ends the containers of the embedded runtime, which outlive
// the node on purpose. A Docker engine is somebody else's: its containers of
// ours end with the cluster's next word to them, or by hand.
func endContainers(c Config) error {
	return containerd.Sweep(containerd.Config{Node: c.ID, Root: c.dir("containers"), Run: filepath.Join(c.Run, "c")})
}

// removeData empties the data directory. What is mounted below it is taken
// off first: a volume's files belong to the whole cluster.
func removeData(data string) error {
	mounts, err := mountsBelow(data)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w; nothing below %s was removed", m, err, data)
		}
	}
	if left, err := mountsBelow(data); err != nil || len(left) > 0 {
		return fmt.Errorf("still mounted: %v %w; nothing below %s was removed", left, err, data)
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mountsBelow lists the mount points below a directory, the deepest first
// (proc(5), mountinfo; spaces and the like are octal there).
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if at := unescape.Replace(fields[4]); strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/") {
			out = append([]string{at}, out...) // later mounts are on top
		}
	}
	return out, lines.Err()
}
