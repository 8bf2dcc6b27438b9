package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"appliance/discovery"
	"appliance/lb"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/state"
)

// ingressTable derives what the proxies answer from the state and the
// catalog. Two apps that want the same host and path are told apart by age:
// the older one keeps it.
func ingressTable(snap *state.Snapshot, catalog *discovery.Table) (routes []lb.Route, services []lb.Service) {
	apps := slices.SortedFunc(state.Apps.All(snap), func(a, b *model.App) int { return int(a.CreateIndex) - int(b.CreateIndex) })
	taken := map[string]bool{}
	for _, a := range apps {
		rel := state.Releases.Get(snap, model.ReleaseKey(a.ID, a.Release))
		if rel == nil || len(rel.Spec.Ports) == 0 {
			continue
		}
		made := map[int]bool{}
		for _, r := range appRoutes(rel) {
			// As the proxy compares: a table with a route twice is refused as a whole.
			key := strings.ToLower(r.Host) + strings.TrimRight(r.Path, "/")
			if taken[key] || r.Port >= len(rel.Spec.Ports) {
				continue
			}
			taken[key] = true
			name := serviceName(a.ID, r.Port)
			routes = append(routes, lb.Route{Host: r.Host, PathPrefix: r.Path, Service: name, Options: lb.Options{ShowBackend: true}})
			if !made[r.Port] {
				made[r.Port] = true
				services = append(services, backends(snap, catalog, a, name, r.Port))
			}
		}
	}
	return routes, services
}

// serviceName names the backends of one port of an app in the proxies.
func serviceName(app string, port int) string {
	if port == 0 {
		return app
	}
	return app + "#" + strconv.Itoa(port)
}

// appRoutes are a release's routes, or NAME-ENV when it names none.
func appRoutes(rel *model.Release) []model.Route {
	if len(rel.Spec.Routes) > 0 {
		return rel.Spec.Routes
	}
	var out []model.Route
	for _, h := range api.Hosts(rel) {
		out = append(out, model.Route{Host: h})
	}
	return out
}

// backends lists the instances of one port. Doubt never empties the set: if
// no instance passes its checks, those that once did are tried.
func backends(snap *state.Snapshot, catalog *discovery.Table, a *model.App, name string, port int) lb.Service {
	s := lb.Service{Name: name}
	var doubtful []lb.Backend
	offered := false
	for _, e := range catalog.App(a.ID) {
		if e.PortIndex != port || e.Task == "" {
			continue
		}
		b := lb.Backend{ID: e.Task, Addr: net.JoinHostPort(e.Addr, strconv.Itoa(e.Port)),
			Release: strconv.FormatUint(e.Release, 10), Node: e.Node, Draining: e.Draining}
		if slices.ContainsFunc(s.Backends, func(o lb.Backend) bool { return o.ID == b.ID && o.Addr == b.Addr }) {
			continue // one task under two service names
		}
		switch {
		case e.Offered():
			offered = true
			s.Backends = append(s.Backends, b)
		case e.Draining:
			s.Backends = append(s.Backends, b)
		default:
			if t := state.Tasks.Get(snap, e.Task); t != nil && t.Status.State == model.TaskRunning && !t.Status.ReadyAt.IsZero() {
				doubtful = append(doubtful, b)
			}
		}
	}
	if !offered {
		for _, b := range doubtful {
			if !slices.ContainsFunc(s.Backends, func(o lb.Backend) bool { return o.ID == b.ID }) {
				s.Backends = append(s.Backends, b)
			}
		}
	}
	s.Cause = fmt.Sprintf("%d instances of %s are wanted and none is ready", a.Instances, a.ID)
	return s
}

// ingress keeps a proxy's table current.
type ingress struct {
	store   *state.Store
	catalog *discovery.Watcher
	proxy   *lb.Proxy
	log     *slog.Logger
}

// Run swaps the proxy's table at every change until ctx ends.
func (i *ingress) Run(ctx context.Context) error {
	for {
		snap := i.store.Snapshot()
		// The catalog follows the same state a moment later; wait for it so
		// that routes and backends are of one moment.
		fresh, cancel := context.WithTimeout(ctx, time.Second)
		_ = i.catalog.Fresh(fresh) // a late catalog wakes us again
		cancel()
		catalog, changed := i.catalog.View()
		routes, services := ingressTable(snap, catalog)
		table, err := lb.NewTable(routes, services)
		if err != nil {
			i.log.Error("routes are not changed", "err", err)
		} else {
			i.proxy.Swap(table)
		}
		if err := i.wait(ctx, snap, changed); err != nil {
			return nil
		}
	}
}

func (i *ingress) wait(ctx context.Context, snap *state.Snapshot, changed <-chan struct{}) error {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); _ = snap.Wait(either, state.Apps.Name, state.Releases.Name) }()
	select {
	case <-done:
	case <-changed:
		cancel()
		<-done
	}
	return ctx.Err()
}
