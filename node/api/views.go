package api

import (
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"

	"appliance/discovery"
	"appliance/node/model"
	"appliance/raft/state"
)

func (s *Server) status(_ *http.Request, snap *state.Snapshot) (any, error) {
	return s.statusOf(snap), nil
}

func (s *Server) statusOf(snap *state.Snapshot) Status {
	st := Status{Fresh: s.Cluster.Fresh(), Index: snap.Index(), Version: s.Version,
		Leader: nodeName(snap, s.Cluster.Leader()), Node: nodeName(snap, s.Cluster.Self()),
		VIPNode: nodeName(snap, s.Cluster.VIPHolder()), Warnings: s.Cluster.Warnings(),
		Nodes: s.nodeViews(snap), Apps: s.appViews(snap, false), Volumes: s.volumeViews(snap)}
	if c, ok := s.Cluster.(Checkups); ok {
		st.Findings = c.Findings()
	}
	for c := range state.Clusters.All(snap) {
		st.Cluster, st.ID, st.VIP = c.Name, c.ID, c.VIP
	}
	return st
}

func nodeName(snap *state.Snapshot, id string) string {
	if n := state.Nodes.Get(snap, id); n != nil {
		return n.Name
	}
	return id
}

func (s *Server) nodes(_ *http.Request, snap *state.Snapshot) (any, error) {
	return s.nodeViews(snap), nil
}

func (s *Server) nodeViews(snap *state.Snapshot) []NodeView {
	out := []NodeView{}
	votes := s.Cluster.Votes()
	for n := range state.Nodes.All(snap) {
		v := NodeView{Node: n, Alive: s.Cluster.Alive(n.ID), Leader: n.ID == s.Cluster.Leader(), VIP: n.ID == s.Cluster.VIPHolder(), Vote: vote(n, votes)}
		for t := range state.Tasks.By(snap, "node", n.ID) {
			if t.Live() {
				v.Tasks++
				v.Used = v.Used.Add(t.Resources)
			}
		}
		out = append(out, v)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// State is a node's status in one word: as the cluster has decided, with what
// gossip sees now, and whether the node has ever been there.
func (v NodeView) State() string {
	switch {
	case v.Status == model.NodeDown && v.StartedAt.IsZero():
		return "joining"
	case v.Status == model.NodeReady && !v.Alive:
		return "silent"
	}
	return string(v.Status)
}

func (s *Server) apps(_ *http.Request, snap *state.Snapshot) (any, error) {
	return s.appViews(snap, false), nil
}

func (s *Server) app(r *http.Request, snap *state.Snapshot) (any, error) {
	id := "/" + strings.Trim(r.PathValue("id"), "/")
	a := state.Apps.Get(snap, id)
	if a == nil {
		return nil, unknownApp(snap, id)
	}
	return s.appView(snap, a, true), nil
}

func unknownApp(snap *state.Snapshot, id string) *model.Error {
	var known []string
	for a := range state.Apps.All(snap) {
		known = append(known, a.ID)
	}
	e := model.Errorf(model.CodeNotFound, "there is no app %s", id)
	if len(known) == 0 {
		return e.Try("deploy one with: appliance deploy NAME --env ENV")
	}
	return e.Because("known are: %s", strings.Join(known, " "))
}

func (s *Server) appViews(snap *state.Snapshot, tasks bool) []AppView {
	out := []AppView{}
	for a := range state.Apps.All(snap) {
		out = append(out, s.appView(snap, a, tasks))
	}
	return out
}

func (s *Server) appView(snap *state.Snapshot, a *model.App, withTasks bool) AppView {
	_, name := model.SplitAppID(a.ID)
	v := AppView{App: a, Name: name, Waiting: named(snap, state.Waiting.Get(snap, a.ID)), Deploying: state.Deployments.Get(snap, a.Deployment)}
	if rel := state.Releases.Get(snap, model.ReleaseKey(a.ID, a.Release)); rel != nil {
		v.Image, v.Digest = rel.Spec.Image, rel.Digest
		v.Hosts = Hosts(rel)
	}
	var lastFailure *model.Task
	for t := range state.Tasks.By(snap, "app", a.ID) {
		tv := taskView(snap, t)
		if t.Status.State == model.TaskRunning {
			v.Running++
		}
		if tv.Ready {
			v.Ready++
		}
		if withTasks {
			v.Tasks = append(v.Tasks, tv)
		}
		if t.Status.State == model.TaskFailed && (lastFailure == nil || t.Status.At.After(lastFailure.Status.At)) {
			lastFailure = t
		}
	}
	if lastFailure != nil && v.Ready < a.Instances {
		v.LastReason = lastFailure.Status.Message
	}
	slices.SortFunc(v.Tasks, func(x, y TaskView) int { return x.CreatedAt.Compare(y.CreatedAt) })
	return v
}

// Hosts are the names under which the proxies answer for a release: those of
// its routes, or NAME-ENV if it has ports and names none.
func Hosts(rel *model.Release) []string {
	var out []string
	for _, r := range rel.Spec.Routes {
		out = append(out, r.Host)
	}
	if len(out) == 0 && len(rel.Spec.Ports) > 0 {
		out = append(out, model.ServiceName(rel.App))
	}
	return out
}

func taskView(snap *state.Snapshot, t *model.Task) TaskView {
	checks := false
	if rel := state.Releases.Get(snap, model.ReleaseKey(t.App, t.Release)); rel != nil {
		checks = len(rel.Spec.Checks) > 0
	}
	return TaskView{Task: t, NodeName: nodeName(snap, t.Node), Ready: t.Ready(checks)}
}

func (s *Server) tasks(r *http.Request, snap *state.Snapshot) (any, error) {
	q := r.URL.Query()
	out := []TaskView{}
	for t := range state.Tasks.All(snap) {
		v := taskView(snap, t)
		if app := q.Get("app"); app != "" && t.App != app {
			continue
		}
		if env := q.Get("env"); env != "" && t.Env != env {
			continue
		}
		if node := q.Get("node"); node != "" && v.NodeName != node {
			continue
		}
		if !q.Has("all") && !t.Live() {
			continue
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(x, y TaskView) int { return x.CreatedAt.Compare(y.CreatedAt) })
	return out, nil
}

func (s *Server) deployments(r *http.Request, snap *state.Snapshot) (any, error) {
	return s.deploymentList(snap, r.URL.Query().Get("app")), nil
}

// deploymentList gives the deployments of an app, or of all, newest first.
func (s *Server) deploymentList(snap *state.Snapshot, app string) []*model.Deployment {
	out := []*model.Deployment{}
	for d := range state.Deployments.All(snap) {
		if app == "" || d.App == app {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(x, y *model.Deployment) int { return y.StartedAt.Compare(x.StartedAt) })
	return out
}

func (s *Server) deployment(r *http.Request, snap *state.Snapshot) (any, error) {
	d := state.Deployments.Get(snap, r.PathValue("id"))
	if d == nil {
		return nil, model.Errorf(model.CodeNotFound, "there is no deployment %s", r.PathValue("id"))
	}
	return d, nil
}

func (s *Server) releases(r *http.Request, snap *state.Snapshot) (any, error) {
	out := []*model.Release{}
	for rel := range state.Releases.By(snap, "app", r.URL.Query().Get("app")) {
		out = append(out, rel)
	}
	return out, nil
}

func (s *Server) services(r *http.Request, _ *state.Snapshot) (any, error) {
	out := []*discovery.Endpoint{}
	table, err := s.Cluster.Catalog(r.Context())
	if err != nil && !r.URL.Query().Has("stale") {
		return nil, model.Errorf(model.CodeUnavailable, "the catalog of this node is behind its state").Because("%v", err).
			Try("ask again or another node, or take what there is: ?stale")
	}
	for _, name := range table.Names() {
		out = append(out, table.Service(name).Endpoints...)
	}
	return out, nil
}

func (s *Server) routes(_ *http.Request, snap *state.Snapshot) (any, error) {
	out := []RouteView{}
	for a := range state.Apps.All(snap) {
		rel := state.Releases.Get(snap, model.ReleaseKey(a.ID, a.Release))
		if rel == nil {
			continue
		}
		for _, host := range Hosts(rel) {
			v := RouteView{Host: host, Path: "/", App: a.ID, Backends: []string{}}
			for t := range state.Tasks.By(snap, "app", a.ID) {
				if tv := taskView(snap, t); tv.Ready && len(t.Ports) > 0 {
					if n := state.Nodes.Get(snap, t.Node); n != nil {
						v.Backends = append(v.Backends, n.Addr+":"+strconv.Itoa(t.Ports[0]))
					}
				}
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *Server) images(_ *http.Request, snap *state.Snapshot) (any, error) {
	return s.imageViews(snap), nil
}

func (s *Server) imageViews(snap *state.Snapshot) []ImageView {
	runs := map[string][]string{}
	for a := range state.Apps.All(snap) {
		if rel := state.Releases.Get(snap, model.ReleaseKey(a.ID, a.Release)); rel != nil && rel.Digest != "" {
			runs[rel.Digest] = append(runs[rel.Digest], a.ID)
		}
	}
	out := []ImageView{}
	for t := range state.Tags.All(snap) {
		out = append(out, ImageView{Repo: t.Repo, Tag: t.Name, Digest: t.Digest, PushedAt: t.PushedAt, Apps: runs[t.Digest]})
	}
	return out
}

func (s *Server) volumes(_ *http.Request, snap *state.Snapshot) (any, error) {
	return s.volumeViews(snap), nil
}

func (s *Server) volumeViews(snap *state.Snapshot) []VolumeView {
	out := []VolumeView{}
	for v := range state.Volumes.All(snap) {
		view := VolumeView{Volume: v, PrimaryName: nodeName(snap, v.Primary), Alive: s.Cluster.Alive(v.Primary)}
		for _, id := range v.InSync {
			view.InSyncNames = append(view.InSyncNames, nodeName(snap, id))
		}
		out = append(out, view)
	}
	return out
}

// maxEvents is the longest answer of GET /events.
const maxEvents = 1000

func (s *Server) events(r *http.Request, snap *state.Snapshot) (any, error) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit <= 0 || limit > maxEvents {
		limit = 100
	}
	return lastEvents(snap, limit), nil
}

func lastEvents(snap *state.Snapshot, limit int) []*model.Event {
	out := []*model.Event{}
	for e := range state.Events.All(snap) {
		out = append(out, e)
	}
	return out[max(0, len(out)-limit):]
}

func (s *Server) environments(_ *http.Request, snap *state.Snapshot) (any, error) {
	return slices.Collect(state.Environments.All(snap)), nil
}

// named replaces node ids by names in an explanation, for people.
func named(snap *state.Snapshot, w *model.Waiting) *model.Waiting {
	if w == nil {
		return nil
	}
	out := *w
	out.Refusals = slices.Clone(w.Refusals)
	for i := range out.Refusals {
		out.Refusals[i].Node = nodeName(snap, out.Refusals[i].Node)
	}
	slices.SortFunc(out.Refusals, func(x, y model.Refusal) int { return strings.Compare(x.Node, y.Node) })
	return &out
}

// NoPlace counts instances that wait, in words.
func NoPlace(n int) string {
	if n == 1 {
		return "1 instance has no place"
	}
	return strconv.Itoa(n) + " instances have no place"
}

// Why is the answer of GET /why: what is wrong with an app and what to do.
type Why struct {
	App     string         `json:"app"`
	Healthy bool           `json:"healthy"`
	Summary string         `json:"summary"`
	Waiting *model.Waiting `json:"waiting,omitempty"`
	Failed  []TaskView     `json:"failed,omitempty"`
}

func (s *Server) why(r *http.Request, snap *state.Snapshot) (any, error) {
	id := r.URL.Query().Get("app")
	a := state.Apps.Get(snap, id)
	if a == nil {
		return nil, unknownApp(snap, id)
	}
	v := s.appView(snap, a, true)
	out := Why{App: id, Waiting: v.Waiting, Healthy: v.Ready >= a.Instances}
	for _, t := range v.Tasks {
		if t.Status.State == model.TaskFailed || t.Status.State == model.TaskError {
			out.Failed = append(out.Failed, t)
		}
	}
	switch {
	case out.Waiting != nil:
		out.Summary = NoPlace(out.Waiting.Tasks)
	case out.Healthy:
		out.Summary = "all instances are ready"
	case v.LastReason != "":
		out.Summary = "instances fail: " + v.LastReason
	default:
		out.Summary = strconv.Itoa(v.Ready) + " of " + strconv.Itoa(a.Instances) + " instances are ready"
	}
	return out, nil
}
