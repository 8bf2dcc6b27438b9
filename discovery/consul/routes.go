package consul

import (
	"net/http"
	"slices"
	"strings"
)

type handler func(http.ResponseWriter, *http.Request) error

type methods map[string]handler

// route is one endpoint. A path that ends with a slash takes everything below;
// net/http's own multiplexer would clean KV keys, so it is not used.
type route struct{ methods methods }

func (rt *route) allow() string {
	names := make([]string, 0, len(rt.methods))
	for name := range rt.methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(append([]string{http.MethodOptions}, names...), ",")
}

type routes struct {
	exact  map[string]*route
	prefix []string // longest first
	below  map[string]*route
}

func (t *routes) find(path string) (*route, bool) {
	if rt := t.exact[path]; rt != nil {
		return rt, true
	}
	for _, p := range t.prefix {
		if strings.HasPrefix(path, p) {
			return t.below[p], true
		}
	}
	return nil, false
}

func newRoutes(all map[string]methods) *routes {
	t := &routes{exact: map[string]*route{}, below: map[string]*route{}}
	for path, m := range all {
		rt := &route{m}
		if strings.HasSuffix(path, "/") {
			t.below[path] = rt
			t.prefix = append(t.prefix, path)
		} else {
			t.exact[path] = rt
		}
	}
	slices.SortFunc(t.prefix, func(a, b string) int { return len(b) - len(a) })
	return t
}

func get(h handler) methods { return methods{http.MethodGet: h} }
func put(h handler) methods { return methods{http.MethodPut: h} }

// rest is what follows the prefix of a route.
func rest(r *http.Request, prefix string) string { return strings.TrimPrefix(r.URL.Path, prefix) }

func (s *Server) table() *routes {
	return newRoutes(map[string]methods{
		"/v1/status/leader": get(s.statusLeader),
		"/v1/status/peers":  get(s.statusPeers),

		"/v1/agent/self":                 get(s.agentSelf),
		"/v1/agent/version":              get(s.agentVersion),
		"/v1/agent/members":              get(s.agentMembers),
		"/v1/agent/services":             get(s.agentServices),
		"/v1/agent/service/":             get(s.agentService),
		"/v1/agent/checks":               get(s.agentChecks),
		"/v1/agent/service/register":     put(s.agentRegisterService),
		"/v1/agent/service/deregister/":  put(s.agentDeregisterService),
		"/v1/agent/service/maintenance/": put(s.agentServiceMaintenance),
		"/v1/agent/maintenance":          put(s.agentMaintenance),
		"/v1/agent/check/register":       put(s.agentRegisterCheck),
		"/v1/agent/check/deregister/":    put(s.agentDeregisterCheck),
		"/v1/agent/check/pass/":          put(s.agentCheckTTL("/v1/agent/check/pass/", "passing")),
		"/v1/agent/check/warn/":          put(s.agentCheckTTL("/v1/agent/check/warn/", "warning")),
		"/v1/agent/check/fail/":          put(s.agentCheckTTL("/v1/agent/check/fail/", "critical")),
		"/v1/agent/check/update/":        put(s.agentCheckUpdate),
		"/v1/agent/health/service/name/": get(s.agentHealthName),
		"/v1/agent/health/service/id/":   get(s.agentHealthID),
		"/v1/agent/connect/ca/roots":     get(s.caRoots),
		"/v1/connect/ca/roots":           get(s.caRoots),

		"/v1/catalog/register":          put(s.catalogRegister),
		"/v1/catalog/deregister":        put(s.catalogDeregister),
		"/v1/catalog/datacenters":       get(s.catalogDatacenters),
		"/v1/catalog/nodes":             get(s.catalogNodes),
		"/v1/catalog/services":          get(s.catalogServices),
		"/v1/catalog/service/":          get(s.catalogService),
		"/v1/catalog/node/":             get(s.catalogNode),
		"/v1/catalog/node-services/":    get(s.catalogNodeServices),
		"/v1/catalog/connect/":          get(s.emptyList),
		"/v1/catalog/gateway-services/": get(s.emptyList),

		"/v1/health/service/": get(s.healthService),
		"/v1/health/node/":    get(s.healthNode),
		"/v1/health/checks/":  get(s.healthChecks),
		"/v1/health/state/":   get(s.healthState),
		"/v1/health/connect/": get(s.emptyList),
		"/v1/health/ingress/": get(s.emptyList),

		"/v1/coordinate/nodes":       get(s.emptyList),
		"/v1/coordinate/datacenters": get(s.emptyList),
		"/v1/query":                  get(s.emptyList),

		"/v1/kv/": {http.MethodGet: s.kvGet, http.MethodPut: s.kvPut, http.MethodDelete: s.kvDelete},
		"/v1/txn": put(s.txn),

		"/v1/session/create":   put(s.sessionCreate),
		"/v1/session/destroy/": put(s.sessionDestroy),
		"/v1/session/renew/":   put(s.sessionRenew),
		"/v1/session/info/":    get(s.sessionInfo),
		"/v1/session/node/":    get(s.sessionNode),
		"/v1/session/list":     get(s.sessionList),

		"/v1/event/fire/": put(s.eventFire),
		"/v1/event/list":  get(s.eventList),

		"/v1/operator/raft/configuration": get(s.raftConfiguration),
		"/v1/snapshot":                    {http.MethodGet: s.snapshot, http.MethodPut: s.snapshot},
	})
}
