package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"appliance/raft/durable"

	hraft "github.com/hashicorp/raft"
)

// Position is what a master has of the log.
type Position struct {
	Term     uint64   `json:"term"` // that it voted in
	Last     uint64   `json:"last"` // index of the last entry, in the log or in a snapshot
	LastTerm uint64   `json:"lastTerm"`
	Commit   uint64   `json:"commit"` // known to be committed
	Servers  []Server `json:"servers"`
}

// Less reports whether other has more of the log, in the order in which raft compares candidates.
func (p Position) Less(other Position) bool {
	return p.LastTerm < other.LastTerm || p.LastTerm == other.LastTerm && p.Last < other.Last
}

// Position returns the position of a running node.
func (n *Node) Position() (Position, error) {
	servers, err := n.Servers()
	raw := n.raft.Stats()
	num := func(key string) uint64 { v, _ := strconv.ParseUint(raw[key], 10, 64); return v }
	p := Position{Term: num("term"), Last: num("last_log_index"), LastTerm: num("last_log_term"), Commit: n.raft.CommitIndex(), Servers: servers}
	if at := num("last_snapshot_index"); at > p.Last { // the log is empty after a recovery or a resync
		p.Last, p.LastTerm = at, num("last_snapshot_term")
	}
	return p, err
}

// Inspect reads the directory of a node that does not run, and applies all it has to c.Replica. A stopped
// node knows of its snapshot only that it was committed.
func Inspect(c Config) (Position, error) {
	e, err := examine(c.Dir, c.witness())
	if err == nil {
		err = e.err()
	}
	if err != nil {
		return Position{}, err
	}
	p := Position{Last: e.last, LastTerm: e.lastTerm}
	if e.best != nil {
		p.Commit = e.best.index
		if e.best.index > p.Last {
			p.Last, p.LastTerm = e.best.index, e.best.term
		}
	}
	for _, s := range e.servers.Servers {
		p.Servers = append(p.Servers, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == hraft.Voter})
	}
	if !e.found {
		return p, nil
	}
	d, err := openDisk(c, newHCLog(c.Log))
	if err != nil {
		return p, err
	}
	defer d.close()
	if p.Term, err = d.stable.GetUint64([]byte("CurrentTerm")); err != nil {
		return p, err
	}
	return p, d.replay(c.Replica)
}

// replay applies the newest snapshot and the entries after it, committed or not.
func (d *disk) replay(r *Replica) error {
	var index uint64
	snaps, err := d.snaps.List()
	if err != nil {
		return err
	}
	if len(snaps) > 0 {
		_, in, err := d.snaps.Open(snaps[0].ID)
		if err != nil {
			return err
		}
		defer in.Close()
		if err := r.Restore(in); err != nil {
			return err
		}
		index = snaps[0].Index
	}
	last, err := d.log.LastIndex()
	for i := index + 1; i <= last && err == nil; i++ {
		var l hraft.Log
		if err = d.log.GetLog(i, &l); err == nil && l.Type == hraft.LogCommand {
			fsm{r}.Apply(&l)
		}
	}
	return errors.Join(err, r.Err())
}

// KeepCopy copies the directory to place, as a whole or not at all. It may be repeated after a crash: a
// copy that is there stays as it is. The node must not run.
func KeepCopy(c Config, place string) error {
	if exists(place) {
		return nil
	}
	const partly = ".part"
	part := place + partly
	crashed, err := filepath.Glob(filepath.Join(filepath.Dir(place), "*"+partly))
	for _, old := range crashed {
		err = errors.Join(err, os.RemoveAll(old))
	}
	if err == nil {
		err = copyTree(c.Dir, part)
	}
	if err == nil {
		err = os.Rename(part, place)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep a copy of %s: %w", c.Dir, err), os.RemoveAll(part))
	}
	return durable.SyncDir(filepath.Dir(place))
}

// Recover makes this node the only master, with everything in its log, committed or not: for a cluster
// whose other masters are lost for ever. The node must not run, and KeepCopy comes first. It may be
// repeated after a crash. If it fails, changed says whether this node is the only master there already, by
// this attempt or an earlier one.
func Recover(c Config) (changed bool, err error) {
	hlog := newHCLog(c.Log)
	e, err := examine(c.Dir, c.witness())
	if err == nil {
		err = e.err()
	}
	if err != nil {
		return false, err
	}
	d, err := openDisk(c, hlog)
	if err != nil {
		return false, err
	}
	conf := hraft.DefaultConfig()
	conf.LocalID, conf.Logger = hraft.ServerID(c.ID), hlog
	_, trans := hraft.NewInmemTransport(hraft.ServerAddress(c.Addr))
	alone := hraft.Configuration{Servers: []hraft.Server{{ID: hraft.ServerID(c.ID), Address: hraft.ServerAddress(c.Addr)}}}
	err = hraft.RecoverCluster(conf, fsm{c.Replica}, d.log, d.stable, d.snaps, trans, alone)
	// The new members are in a snapshot. Until it is there, nothing has changed.
	list, _ := d.snaps.List()
	changed = len(list) > 0 && slices.Equal(list[0].Configuration.Servers, alone.Servers)
	return changed, errors.Join(err, d.close())
}

// Names below the place to which a log is set aside.
const (
	asideLog     = "raft"
	asideWitness = "witness"
)

// movable are the log and its second copies, and where each lies in place. The log comes last: what is
// moved is complete when it has come.
func (c Config) movable(place string) (out [][2]string) {
	for _, name := range []string{metaCopyFile, tailFile} {
		if c.Witness == "" {
			break // they are in Dir
		}
		out = append(out, [2]string{filepath.Join(c.witness(), name), filepath.Join(place, asideWitness, name)})
	}
	return append(out, [2]string{c.Dir, filepath.Join(place, asideLog)})
}

// SetAside moves the log and its second copies to the directory place. The node has no log then. It may
// be repeated. It reports whether place has a log now.
func SetAside(c Config, place string) (bool, error) {
	for _, m := range c.movable(place) {
		if err := move(m[0], m[1]); err != nil {
			return false, err
		}
	}
	return exists(filepath.Join(place, asideLog)), nil
}

// PutBack undoes SetAside. A log that the node has got since goes to the place instead. It must never
// have run with that one: what it promised with it would be forgotten. It may be repeated.
func PutBack(c Config, from, instead string) error {
	switch kept, there := exists(filepath.Join(from, asideLog)), exists(c.Dir); {
	case !kept && !there:
		return fmt.Errorf("there is no log in %s: %w", from, fs.ErrNotExist)
	case kept && there:
		if _, err := SetAside(c, instead); err != nil {
			return err
		}
	}
	for _, m := range c.movable(from) {
		if err := move(m[1], m[0]); err != nil {
			return err
		}
	}
	return nil
}

// move renames a file or directory durably. One that is not there is no error.
func move(from, to string) error {
	if !exists(from) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(filepath.Dir(to)), durable.SyncDir(filepath.Dir(from)))
}

// Renew makes the directory of a master that has lost its log and was readmitted at term. It must not
// take part in earlier terms, in which it may have voted.
func Renew(c Config, term uint64) error {
	d, err := openDisk(c, newHCLog(c.Log))
	if err != nil {
		return err
	}
	old, err := d.stable.GetUint64([]byte("CurrentTerm"))
	if err == nil && old < term {
		err = d.stable.SetUint64([]byte("CurrentTerm"), term)
	}
	return errors.Join(err, d.close())
}

// Readmit asks the leader to take this master out of the log and in again without a vote, since it has
// forgotten what it voted and stored. From the term that is returned on it counts as a new member. While
// it waits it must not run: neither vote nor take entries. The other masters must have a majority of
// their own for it.
func (r *Remote) Readmit(ctx context.Context, id, addr string) (term uint64, err error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	err = retryChange(ctx, func() error {
		at := r.pick()
		if at == "" {
			return errRetry{cause: ErrNoLeader}
		}
		var out readmitted
		err := r.rpc.change(ctx, at, memberChange{Op: opReadmit, ID: id, Addr: addr}, &out)
		r.judge(at, err)
		term = out.Term
		return err
	})
	return term, err
}

// readmitted answers a readmission.
type readmitted struct {
	Term uint64 `json:"term,omitempty"`
}

// readmitHere removes and adds the member. Both are committed by a majority of the others, which then
// know nothing of it any more: whatever it once acknowledged or voted counts no longer.
func (n *Node) readmitHere(ctx context.Context, id, addr string) error {
	if id == n.conf.ID {
		return errors.New("the leader cannot be readmitted")
	}
	if err := n.RemoveServer(ctx, id); err != nil {
		return err
	}
	return n.member(ctx, n.raft.AddNonvoter(hraft.ServerID(id), hraft.ServerAddress(addr), 0, memberTimeout))
}

// copyTree copies a directory; what is zero stays a hole, as most of a segment is.
func copyTree(from, to string) error {
	if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, path[len(from):])
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(path, target)
	}); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	const block = 64 << 10
	buf, zero := make([]byte, block), make([]byte, block)
	for at := int64(0); ; at += block {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		if ended(err) {
			return errors.Join(out.Truncate(at+int64(n)), out.Sync(), durable.SyncDir(filepath.Dir(to)))
		}
		if err != nil {
			return err
		}
	}
}

// Peers returns the members that a log names, as far as it can be read: whom to ask for a new one.
func Peers(c Config) (out []Server) {
	e, err := examine(c.Dir, c.witness())
	if err != nil {
		return nil
	}
	confs := []hraft.Configuration{e.servers}
	for _, s := range e.snaps {
		confs = append(confs, s.conf)
	}
	for _, conf := range confs {
		for _, s := range conf.Servers {
			out = append(out, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == hraft.Voter})
		}
	}
	return out
}
