// Package discovery derives the service catalog from the replicated state.
//
// Nothing registers itself: an endpoint is a running task's port, a service
// that somebody registered through the Consul dialect, or a master. Catalog is
// a pure function of a state snapshot and of the gossip's opinion about nodes;
// Watcher recomputes it on change and shares one immutable Table between all
// consumers (DNS, the Consul dialect, proxies), so that they agree.
package discovery
