package marathon

import (
	"net/http"
	"strings"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// apps serves /v2/apps and below.
func (c *call) apps(rest string) error {
	if rest == "" {
		return c.appList()
	}
	parts := strings.Split(rest, "/")
	n := len(parts)
	switch {
	case n > 1 && parts[n-1] == "restart":
		return c.restart(c.resolve(strings.Join(parts[:n-1], "/")))
	case n > 1 && parts[n-1] == "tasks":
		return c.appTasks(c.resolve(strings.Join(parts[:n-1], "/")))
	case n > 2 && parts[n-2] == "tasks":
		return c.appTask(c.resolve(strings.Join(parts[:n-2], "/")), parts[n-1])
	case n > 1 && parts[n-1] == "versions":
		return c.get(func() error { return c.versions(c.resolve(strings.Join(parts[:n-1], "/"))) })
	case n > 2 && parts[n-2] == "versions":
		return c.get(func() error { return c.version(c.resolve(strings.Join(parts[:n-2], "/")), parts[n-1]) })
	case parts[n-1] == "*":
		return c.get(func() error {
			list, err := c.selected(strings.Join(parts[:n-1], "/"))
			if err != nil {
				return err
			}
			return c.reply(http.StatusOK, map[string]any{"*": list})
		})
	}
	return c.app(c.resolve(rest))
}

func (c *call) appList() error {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		list, err := c.selected("")
		if err != nil {
			return err
		}
		return c.reply(http.StatusOK, map[string]any{"apps": list})
	case http.MethodPost:
		return c.create()
	case http.MethodPut, http.MethodPatch:
		return c.putMany()
	}
	return errMethod
}

// selected lists the apps below a path that match the query.
func (c *call) selected(below string) ([]any, error) {
	match, err := parseSelector(c.r.URL.Query().Get("label"))
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	list := []any{}
	for a := range state.Apps.All(c.snap) {
		rel := c.release(a)
		if rel == nil || below != "" && !strings.HasPrefix(a.ID+"/", c.resolve(below)+"/") && !strings.HasPrefix(a.ID, "/"+below+"/") {
			continue
		}
		if !strings.Contains(a.ID, q.Get("id")) || !strings.Contains(rel.Spec.Shell, q.Get("cmd")) || !match(rel.Spec.Labels) {
			continue
		}
		list = append(list, c.render(a, rel, c.embeds("tasks")))
	}
	return list, nil
}

// embeds reports whether ?embed asks for a part of apps.
func (c *call) embeds(part string) bool {
	for _, e := range c.r.URL.Query()["embed"] {
		if e == "apps."+part || e == "app."+part || e == "group.apps."+part {
			return true
		}
	}
	return false
}

func (c *call) release(a *model.App) *model.Release {
	return state.Releases.Get(c.snap, model.ReleaseKey(a.ID, a.Release))
}

func (c *call) app(id string) error {
	a := state.Apps.Get(c.snap, id)
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		if a == nil || c.release(a) == nil {
			return noApp(c.shown(id))
		}
		return c.reply(http.StatusOK, map[string]any{"app": c.render(a, c.release(a), true)})
	case http.MethodPut, http.MethodPatch:
		if a == nil && c.r.Method == http.MethodPatch {
			return noApp(c.shown(id))
		}
		return c.putOne(id, a)
	case http.MethodDelete:
		return c.deleteApp(id, a)
	}
	return errMethod
}

// shown is the id as the client may have written it, for error texts.
func (c *call) shown(id string) string {
	if c.defaultEnv() != "" {
		if short, ok := strings.CutPrefix(id, "/"+c.defaultEnv()+"/"); ok && !strings.Contains(c.r.URL.Path, c.defaultEnv()+"/") {
			return "/" + short
		}
	}
	return id
}

func (c *call) create() error {
	doc, err := c.object()
	if err != nil {
		return err
	}
	ch, err := c.prepare(doc, "", true)
	if err != nil {
		return err
	}
	if ch.app != nil {
		return &failure{status: http.StatusConflict, Message: "An app with id [" + ch.spec.ID + "] already exists."}
	}
	deployment, err := c.commit(ch, true)
	if err != nil {
		return err
	}
	c.snap = c.Store.Snapshot()
	a := state.Apps.Get(c.snap, ch.spec.ID)
	if a == nil {
		return notFound("App '%s' was deleted at once", ch.spec.ID)
	}
	out := c.render(a, c.release(a), true)
	out["deployments"] = []any{map[string]string{"id": deployment}}
	c.w.Header().Set("Location", "/v2/apps"+ch.spec.ID)
	c.w.Header().Set("Marathon-Deployment-Id", deployment)
	return c.reply(http.StatusCreated, out)
}

// putMany changes several apps; all documents are judged before the first is
// committed.
func (c *call) putMany() error {
	body, err := c.body()
	if err != nil {
		return err
	}
	list, ok := body.([]any)
	if !ok {
		return invalid("Invalid JSON", []detail{{"/", []string{"error.expected.jsarray"}}})
	}
	var changes []*change
	for _, v := range list {
		doc, err := asObject(v)
		if err != nil {
			return err
		}
		ch, err := c.prepare(doc, "", c.r.URL.Query().Get("partialUpdate") == "false")
		if err != nil {
			return err
		}
		if ch.app == nil && c.r.Method == http.MethodPatch {
			return noApp(ch.spec.ID)
		}
		changes = append(changes, ch)
	}
	return c.commitAll(changes)
}

func (c *call) putOne(id string, a *model.App) error {
	doc, err := c.object()
	if err != nil {
		return err
	}
	if v, ok := doc["version"].(string); ok && a != nil && len(doc) == 1 {
		return c.rollBack(a, v)
	}
	ch, err := c.prepare(doc, id, c.r.URL.Query().Get("partialUpdate") == "false")
	if err != nil {
		return err
	}
	deployment, err := c.commit(ch, c.flag("force"))
	if err != nil {
		return err
	}
	status := http.StatusOK
	if a == nil {
		status = http.StatusCreated
	}
	return c.replyDeployment(status, deployment)
}

// rollBack goes to an older release.
func (c *call) rollBack(a *model.App, version string) error {
	if a.Deployment != "" && !c.flag("force") {
		return locked(a.Deployment)
	}
	for r := range state.Releases.By(c.snap, "app", a.ID) {
		if stamp(r.CreatedAt) == version {
			d := c.newDeployment("revert")
			_, err := c.propose(&command.ScaleApp{App: a.ID, Instances: a.Instances, Release: r.Version, Deployment: d})
			if err != nil {
				return err
			}
			return c.replyDeployment(http.StatusOK, d.ID)
		}
	}
	return unprocessable("App '%s' has no version %s", a.ID, version)
}

func (c *call) restart(id string) error {
	if c.r.Method != http.MethodPost {
		return errMethod
	}
	a := state.Apps.Get(c.snap, id)
	if a == nil || c.release(a) == nil {
		return noApp(c.shown(id))
	}
	if a.Deployment != "" && !c.flag("force") {
		return locked(a.Deployment)
	}
	rel := *c.release(a)
	rel.Version, rel.CreatedAt = 0, c.now
	d := c.newDeployment("restart")
	if _, err := c.propose(&command.CreateRelease{Release: rel, Instances: a.Instances, Deployment: d}); err != nil {
		return err
	}
	return c.replyDeployment(http.StatusOK, d.ID)
}

// deleteApp needs no force: since 1.9 Marathon takes it as given.
func (c *call) deleteApp(id string, a *model.App) error {
	if a == nil {
		return noApp(c.shown(id))
	}
	if a.Deployment != "" && c.r.URL.Query().Get("force") == "false" {
		return locked(a.Deployment)
	}
	if _, err := c.propose(&command.DeleteApp{App: id, At: c.now}); err != nil {
		return err
	}
	return c.replyDeployment(http.StatusOK, c.NewID())
}

func (c *call) newDeployment(kind string) model.Deployment {
	return model.Deployment{ID: c.NewID(), Kind: kind, StartedAt: c.now}
}

func (c *call) replyDeployment(status int, id string) error {
	c.w.Header().Set("Marathon-Deployment-Id", id)
	return c.reply(status, map[string]string{"version": stamp(c.now), "deploymentId": id})
}

func (c *call) versions(id string) error {
	if state.Apps.Get(c.snap, id) == nil {
		return noApp(c.shown(id))
	}
	list := []string{}
	for r := range state.Releases.By(c.snap, "app", id) {
		list = append([]string{stamp(r.CreatedAt)}, list...)
	}
	return c.reply(http.StatusOK, map[string]any{"versions": list})
}

func (c *call) version(id, version string) error {
	a := state.Apps.Get(c.snap, id)
	if a == nil {
		return noApp(c.shown(id))
	}
	for r := range state.Releases.By(c.snap, "app", id) {
		if stamp(r.CreatedAt) == version {
			doc := definition(r)
			doc["version"] = version
			return c.reply(http.StatusOK, doc)
		}
	}
	return notFound("App '%s' does not exist in version %s", c.shown(id), version)
}
