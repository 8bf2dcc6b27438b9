package api

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"appliance/discovery"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/state"
)

//go:embed web
var web embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"join": func(list []string) string { return strings.Join(list, ", ") },
	"short": func(d string) string {
		return strings.TrimPrefix(d, "sha256:")[:min(12, len(strings.TrimPrefix(d, "sha256:")))]
	},
	"since": func(t time.Time) string { return doctor.Ago(time.Since(t)) },
	"ms": func(d model.Duration) string {
		if d == 0 {
			return "none meanwhile"
		}
		return d.D().Round(time.Millisecond).String()
	},
	"noPlace": NoPlace,
	"move": func(d *model.Deployment) string {
		if d.From == 0 || d.From == d.To {
			return fmt.Sprint(d.To)
		}
		return fmt.Sprintf("%d to %d", d.From, d.To)
	},
	"took": func(d *model.Deployment) string {
		if d.EndedAt.IsZero() {
			return "running"
		}
		return d.EndedAt.Sub(d.StartedAt).Round(time.Millisecond).String()
	},
	"attrs": func(m map[string]string) string {
		var out []string
		for k, v := range m {
			out = append(out, k+"="+v)
		}
		sort.Strings(out)
		return strings.Join(out, ", ")
	},
	"appState": uiAppState, "nodeState": uiNodeState, "taskState": uiTaskState,
}).ParseFS(web, "web/*.html"))

func uiAppState(v AppView) string {
	switch {
	case v.Waiting != nil:
		return fmt.Sprintf("%d without a place", v.Waiting.Tasks)
	case v.Deploying != nil:
		return v.Deploying.Kind + " is running"
	case v.LastReason != "":
		return "failing: " + v.LastReason
	case v.Ready < v.Instances:
		return "recovering"
	}
	return "steady"
}

func uiNodeState(n NodeView) string {
	s := n.State()
	if n.Drain {
		s += ", draining"
	}
	return s
}

func uiTaskState(t TaskView) string {
	s := strings.ToLower(strings.TrimPrefix(string(t.Status.State), "TASK_"))
	if t.Ready {
		s += ", ready"
	} else if t.Stop && t.Live() {
		s += ", stopping"
	}
	return s
}

type navItem struct {
	Name, Href string
	Here       bool
}

// page is what a template sees.
type page struct {
	Title       string
	Nav         []navItem
	Status      Status
	Body        template.HTML
	App         AppView
	Deployments []*model.Deployment
	Services    []*discovery.Service
	Images      []ImageView
	Events      []*model.Event
	Net         *Net
}

// UI returns the web pages, to be mounted at /ui/. They are plain HTML that
// reads without JavaScript and follows the cluster with it.
func (s *Server) UI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ui/{$}", s.page("Overview", "overview", nil))
	mux.HandleFunc("GET /ui/apps", s.page("Apps", "appsPage", nil))
	mux.HandleFunc("GET /ui/nodes", s.page("Nodes", "nodesPage", nil))
	mux.HandleFunc("GET /ui/app/{id...}", s.page("App", "app", s.fillApp))
	mux.HandleFunc("GET /ui/health", s.page("Health", "health", func(_ *http.Request, _ *state.Snapshot, p *page) error {
		if c, ok := s.Cluster.(Checkups); ok {
			n := c.Net()
			p.Net = &n
		}
		return nil
	}))
	mux.HandleFunc("GET /ui/deployments", s.page("Deployments", "deploymentsPage", func(r *http.Request, snap *state.Snapshot, p *page) error {
		p.Deployments = s.deploymentList(snap, "")
		return nil
	}))
	mux.HandleFunc("GET /ui/services", s.page("Services", "services", func(r *http.Request, _ *state.Snapshot, p *page) error {
		table, _ := s.Cluster.Catalog(r.Context()) // the page follows
		for _, name := range table.Names() {
			p.Services = append(p.Services, table.Service(name))
		}
		return nil
	}))
	mux.HandleFunc("GET /ui/images", s.page("Images", "images", func(_ *http.Request, snap *state.Snapshot, p *page) error {
		p.Images = s.imageViews(snap)
		return nil
	}))
	mux.HandleFunc("GET /ui/events", s.page("Events", "events", func(_ *http.Request, snap *state.Snapshot, p *page) error {
		p.Events = lastEvents(snap, 200)
		slices.Reverse(p.Events)
		return nil
	}))
	mux.HandleFunc("GET /ui/style.css", asset("style.css", "text/css"))
	mux.HandleFunc("GET /ui/live.js", asset("live.js", "text/javascript"))
	mux.HandleFunc("GET /ui/changes", s.changes)
	return mux
}

func (s *Server) fillApp(r *http.Request, snap *state.Snapshot, p *page) error {
	id := "/" + r.PathValue("id")
	a := state.Apps.Get(snap, id)
	if a == nil {
		return unknownApp(snap, id)
	}
	p.App = s.appView(snap, a, true)
	p.Title = id
	slices.Reverse(p.App.Tasks)
	p.Deployments = s.deploymentList(snap, id)
	return nil
}

func asset(name, mime string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		raw, err := web.ReadFile("web/" + name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", mime+"; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=300")
		_, _ = w.Write(raw)
	}
}

var navigation = []navItem{{"Overview", "/ui/", false}, {"Apps", "/ui/apps", false}, {"Nodes", "/ui/nodes", false}, {"Services", "/ui/services", false},
	{"Deployments", "/ui/deployments", false}, {"Images", "/ui/images", false}, {"Events", "/ui/events", false}, {"Health", "/ui/health", false}}

func (s *Server) page(title, body string, fill func(*http.Request, *state.Snapshot, *page) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.Authorize(r, Need{}); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		snap := s.Store.Snapshot()
		p := page{Title: title, Nav: slices.Clone(navigation), Status: s.statusOf(snap)}
		for i := range p.Nav {
			href := p.Nav[i].Href
			p.Nav[i].Here = href == r.URL.Path || href == "/ui/apps" && strings.HasPrefix(r.URL.Path, "/ui/app/")
		}
		if fill != nil {
			if err := fill(r, snap, &p); err != nil {
				status := http.StatusInternalServerError
				var e *model.Error
				if errors.As(err, &e) {
					status = statusOf[e.Code]
				}
				http.Error(w, err.Error(), status)
				return
			}
		}
		if err := render(w, body, &p); err != nil {
			s.Log.Error("page cannot be made", "page", body, "err", err)
			http.Error(w, "this page cannot be made; see the node's log", http.StatusInternalServerError)
		}
	}
}

func render(w http.ResponseWriter, body string, p *page) error {
	var inner, outer bytes.Buffer
	if err := pages.ExecuteTemplate(&inner, body, p); err != nil {
		return err
	}
	p.Body = template.HTML(inner.String()) // escaped by its own template
	if err := pages.ExecuteTemplate(&outer, "layout", p); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(outer.Bytes()) // the reader is gone if this fails
	return nil
}

const (
	// changeGap bounds how often a page is told to look again.
	changeGap = 250 * time.Millisecond
	// changeBeat is how often a silent stream shows that it lives.
	changeBeat = 15 * time.Second
)

// changes tells pages that something has changed, as server-sent events.
func (s *Server) changes(w http.ResponseWriter, r *http.Request) {
	if err := s.Authorize(r, Need{}); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	ctx := r.Context()
	for ctx.Err() == nil {
		snap := s.Store.Snapshot()
		if _, err := fmt.Fprintf(w, "data: %d\n\n", snap.Index()); err != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(changeGap):
		}
		wait, cancel := context.WithTimeout(ctx, changeBeat)
		_ = snap.Wait(wait, state.Apps.Name, state.Tasks.Name, state.Nodes.Name, state.Deployments.Name, state.Tags.Name, state.Volumes.Name)
		cancel()
	}
}
