package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"appliance/nfs/mount"
	"appliance/nfs/server"
	"appliance/nfs/tunnel"
	"appliance/node/model"
	"appliance/node/wire"
	"appliance/raft/command"
	"appliance/raft/state"
)

// volumes is a node's part in the shared volumes: it serves those whose
// primary it is, and mounts those that its tasks use.
type volumes struct {
	cfg      Config
	store    *state.Store
	proposer command.Proposer
	server   *server.Server
	dialer   *wire.Dialer
	alive    func(node string) bool
	leader   func() string
	holder   func() string               // of the VIP
	certain  func(context.Context) error // returns when the state is that of the cluster now
	log      *slog.Logger

	damage volumeDamage
	fenced map[string]time.Time // node id -> since when it was down when it was fenced; of run
}

// openVolumes serves volumes to other nodes and opens this node's own way to
// them.
func (n *Node) openVolumes(context.Context) error {
	v := &volumes{cfg: n.cfg, store: n.store, proposer: n.proposer, dialer: n.dialer, alive: n.alive,
		leader: n.core.leader, holder: n.vipHolder, certain: n.core.Linearize, log: n.log}
	n.volumes = v
	var err error
	v.server, err = server.Open(n.cfg.dir("volumes"), server.Options{Log: n.log, Authorize: v.authorize})
	if err != nil {
		return err
	}
	n.server.Handle(wire.NFS, func(c net.Conn, p wire.Peer) {
		if err := v.server.Serve(context.Background(), c, p.ID); err != nil { // ends with its connection
			n.log.Debug("volume connection ended", "peer", p.Name, "err", err)
		}
	})
	if err := os.Remove(v.socket()); err != nil && !os.IsNotExist(err) {
		return err
	}
	ln, err := net.Listen("unix", v.socket())
	if err != nil {
		return err
	}
	t := &tunnel.Tunnel{Dial: v.dial, Log: n.log}
	n.part("volume tunnel", func(ctx context.Context) error { return t.Serve(ctx, ln) })
	n.part("volumes", v.run)
	n.part("volume damage", v.watchDamage)
	return nil
}

func (v *volumes) socket() string   { return filepath.Join(v.cfg.Run, "volumes.sock") }
func (v *volumes) targets() string  { return v.cfg.dir("mounts") }
func (v *volumes) stateDir() string { return filepath.Join(v.cfg.Run, "mounts") }

// authorize lets the nodes of a volume's environment use it.
func (v *volumes) authorize(peer, volume string) error {
	snap := v.store.Snapshot()
	vol, n := state.Volumes.Get(snap, volume), state.Nodes.Get(snap, peer)
	if vol == nil || n == nil {
		return fmt.Errorf("volume %s or node %s is not known", volume, peer)
	}
	if env := state.Environments.Get(snap, vol.Env); env != nil && !env.Selects(n) {
		return fmt.Errorf("node %s is not of environment %s", n.Name, vol.Env)
	}
	return nil
}

// dial connects to the volume's primary.
func (v *volumes) dial(ctx context.Context, volume string) (net.Conn, error) {
	snap := v.store.Snapshot()
	vol := state.Volumes.Get(snap, volume)
	if vol == nil {
		return nil, fmt.Errorf("volume %s is not known", volume)
	}
	n := state.Nodes.Get(snap, vol.Primary)
	if n == nil {
		return nil, fmt.Errorf("volume %s: its node is gone", volume)
	}
	return v.dialer.Dial(ctx, withPort(n.Addr), wire.NFS)
}

// Mount implements agent.Volumes.
func (v *volumes) Mount(ctx context.Context, name string) (string, error) {
	spec := v.spec(name)
	err := mount.Mount(ctx, spec)
	if err != nil {
		return "", model.Errorf(model.CodeUnavailable, "volume %s cannot be mounted", name).Because("%v", err).
			Try("see appliance volumes: the node that serves it must be alive")
	}
	return spec.Target, nil
}

func (v *volumes) spec(name string) mount.Spec {
	return mount.Spec{Volume: name, Target: filepath.Join(v.targets(), name), Endpoint: v.socket(), ClientID: v.cfg.ID, StateDir: v.stateDir()}
}

// certainTime bounds the wait for a certain state before a sweep.
const certainTime = 5 * time.Second

// sweepEvery is how long an unused mount may stay.
const sweepEvery = 30 * time.Second

// run creates the volumes that this node is to serve and removes mounts that
// no task needs, until ctx ends.
func (v *volumes) run(ctx context.Context) error {
	defer v.server.Close()
	for ctx.Err() == nil {
		snap := v.store.Snapshot()
		v.create(snap)
		v.fence(snap)
		v.release(ctx, snap)
		v.sweep(ctx)
		wait, cancel := context.WithTimeout(ctx, sweepEvery)
		_ = snap.Wait(wait, state.Volumes.Name, state.Nodes.Name)
		cancel()
	}
	return nil
}

func (v *volumes) create(snap *state.Snapshot) {
	have := v.server.Volumes()
	for vol := range state.Volumes.All(snap) {
		if vol.Primary != v.cfg.ID || slices.Contains(have, vol.Name) {
			continue
		}
		if err := v.server.CreateVolume(vol.Name, server.VolumeOptions{Mode: 0o777}); err != nil && !errors.Is(err, server.ErrExists) {
			v.log.Error("volume cannot be created", "volume", vol.Name, "err", err)
			continue
		}
		v.log.Info("volume is served here", "volume", vol.Name)
	}
}

// fence takes the locks of nodes that were declared down, at once, from the
// volumes served here: their tasks run elsewhere and must not wait for leases,
// and what such a node still writes is refused.
func (v *volumes) fence(snap *state.Snapshot) {
	if v.fenced == nil {
		v.fenced = map[string]time.Time{}
	}
	for n := range state.Nodes.All(snap) {
		if n.Status == model.NodeReady || n.StartedAt.IsZero() || v.fenced[n.ID].Equal(n.StatusSince) {
			continue
		}
		v.fenced[n.ID] = n.StatusSince
		for _, name := range v.server.Volumes() {
			if err := v.server.Fence(name, n.ID); err != nil {
				v.log.Warn("a node that is down keeps its locks until they expire", "volume", name, "node", n.Name, "err", err)
			}
		}
	}
}

// releaseTime bounds how long one round waits for servers that do not answer.
const releaseTime = 5 * time.Second

// release gives up what this node had mounted before a reboot and has not
// mounted again: the target directories are on disk, the mounts are not.
func (v *volumes) release(ctx context.Context, snap *state.Snapshot) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	targets, _ := os.ReadDir(v.targets()) // none: nothing was ever mounted
	for _, t := range targets {
		if state.Volumes.Get(snap, t.Name()) == nil {
			continue
		}
		if err := mount.Release(ctx, v.spec(t.Name())); err != nil {
			v.log.Warn("volume cannot be released yet: its server may wait for this node", "volume", t.Name(), "err", err)
		}
	}
}

// sweep unmounts what no task needs. It asks first whether the state is that
// of the cluster now: a node that has just started may know its tasks only
// later, and a mount taken from below a container is dead for ever.
func (v *volumes) sweep(ctx context.Context) {
	mounts, err := mount.List(v.stateDir())
	if err != nil || len(mounts) == 0 {
		return
	}
	ask, cancel := context.WithTimeout(ctx, certainTime)
	defer cancel()
	if v.certain(ask) != nil {
		return // later
	}
	snap := v.store.Snapshot()
	used := map[string]bool{}
	for t := range state.Tasks.By(snap, "node", v.cfg.ID) {
		rel := state.Releases.Get(snap, model.ReleaseKey(t.App, t.Release))
		if !t.Live() || rel == nil {
			continue
		}
		for _, m := range rel.Spec.Volumes {
			used[m.Name] = true
		}
	}
	for _, m := range mounts {
		if used[m.Volume] {
			continue
		}
		if err := mount.Unmount(ctx, v.stateDir(), m.Target); err != nil && !errors.Is(err, mount.ErrBusy) {
			v.log.Warn("unused volume stays mounted", "volume", m.Volume, "err", err)
		}
	}
}

// ensure makes a volume exist: the leader's part, for the scheduler.
func (v *volumes) ensure(ctx context.Context, name, env string) error {
	snap := v.store.Snapshot()
	if state.Volumes.Get(snap, name) != nil {
		return nil
	}
	primary := v.choose(snap)
	if primary == "" {
		return model.Errorf(model.CodeUnplaceable, "no master is alive to serve volume %s", name)
	}
	_, err := command.Do(ctx, v.proposer, &command.PutVolume{Volume: model.Volume{Name: name, Env: env, Primary: primary,
		InSync: []string{primary}, Members: []string{primary}, CreatedAt: time.Now().UTC()}})
	return err
}

// choose picks the master that serves a new volume: not the leader and not
// the holder of the VIP if there is another, so that one loss costs one thing;
// then the one that serves the fewest.
func (v *volumes) choose(snap *state.Snapshot) string {
	load := map[string]int{}
	for vol := range state.Volumes.All(snap) {
		load[vol.Primary]++
	}
	leader, holder := v.leader(), v.holder()
	best, bestCost := "", 0
	for n := range state.Nodes.All(snap) {
		if n.Role != model.RoleMaster || n.Status != model.NodeReady || !v.alive(n.ID) {
			continue
		}
		const busy = 1000 // outweighs any number of volumes that one would make
		cost := load[n.ID]
		if n.ID == leader {
			cost += busy
		}
		if n.ID == holder {
			cost += busy
		}
		if best == "" || cost < bestCost {
			best, bestCost = n.ID, cost
		}
	}
	return best
}
