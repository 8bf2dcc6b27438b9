package lyingfs

import (
	"encoding/json"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Serve mounts the directory root at point and serves it until it is
// unmounted. ready is called when it is there. It listens at address (unix;
// "@name" leaves no file) for Set and Hits.
func Serve(root, point, address string, ready func()) error {
	d := &disk{}
	server, err := mount(root, point, d)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return fmt.Errorf("lying disk: %w", err)
	}
	defer l.Close()
	go d.listen(l)
	ready()
	server.Wait()
	return nil
}

// attrTime is for how long the kernel may remember attributes: nobody else
// changes the directory.
const attrTime = time.Second

func mount(root, point string, d *disk) (*fuse.Server, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(root, &st); err != nil {
		return nil, fmt.Errorf("lying disk: %s: %w", root, err)
	}
	data := &fs.LoopbackRoot{Path: root, Dev: uint64(st.Dev),
		NewNode: func(data *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
			return &node{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: d}
		}}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: d}
	data.RootNode = top
	t := attrTime
	server, err := fs.Mount(point, top, &fs.Options{AttrTimeout: &t, EntryTimeout: &t, NullPermissions: true,
		MountOptions: fuse.MountOptions{AllowOther: true, Options: []string{"default_permissions"}, FsName: "lying", Name: "lying",
			MaxWrite: 1 << 20, DirectMountStrict: true, DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV, DisableXAttrs: true}})
	if err != nil {
		return nil, fmt.Errorf("lying disk at %s: %w: the kernel needs FUSE", point, err)
	}
	return server, nil
}

// message goes each way once on a connection. A nil Set only asks.
type message struct {
	Set   *Behaviour `json:"set,omitempty"`
	Hits  uint64     `json:"hits"`
	Error string     `json:"error,omitempty"`
}

// talkTime bounds a question to the disk.
const talkTime = 5 * time.Second

func (d *disk) listen(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(talkTime))
			var m message
			if err := json.NewDecoder(conn).Decode(&m); err != nil {
				return
			}
			if m.Set != nil {
				d.set(*m.Set)
			}
			_ = json.NewEncoder(conn).Encode(message{Hits: d.hits.Load()}) // nobody to tell if it has gone
		}()
	}
}

// Set makes the disk that listens at address behave so, and returns how many
// operations it has delayed or refused until now.
func Set(address string, b Behaviour) (hits uint64, err error) {
	return ask(address, message{Set: &b})
}

// Hits is how many operations the disk has delayed or refused.
func Hits(address string) (uint64, error) { return ask(address, message{}) }

func ask(address string, m message) (uint64, error) {
	conn, err := net.DialTimeout("unix", address, talkTime)
	if err != nil {
		return 0, fmt.Errorf("lying disk: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(talkTime))
	if err := json.NewEncoder(conn).Encode(m); err != nil {
		return 0, fmt.Errorf("lying disk: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&m); err != nil {
		return 0, fmt.Errorf("lying disk: %w", err)
	}
	return m.Hits, nil
}
