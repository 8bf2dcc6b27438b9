package marathon

import (
	"maps"
	"net/http"
	"path"
	"strings"

	"appliance/raft/command"
	"appliance/raft/state"
)

// groups serves /v2/groups: the tree that the apps' ids form. A group has no
// record of its own, so an empty one does not exist.
func (c *call) groups(rest string) error {
	id := path.Clean("/" + rest)
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		g := c.group(id)
		if g == nil {
			return notFound("Group '%s' does not exist", id)
		}
		return c.reply(http.StatusOK, g)
	case http.MethodPost, http.MethodPut:
		return c.putGroup(id)
	case http.MethodDelete:
		return c.deleteGroup(id)
	}
	return errMethod
}

// group builds the tree below an id, nil if nothing is there.
func (c *call) group(id string) map[string]any {
	root := newGroup(id)
	found := id == "/"
	version := ""
	for a := range state.Apps.All(c.snap) {
		rel := c.release(a)
		if rel == nil || !below(publicID(rel), id) {
			continue
		}
		found = true
		version = max(version, stamp(a.UpdatedAt))
		g := root
		inner := strings.Split(strings.Trim(strings.TrimPrefix(publicID(rel), id), "/"), "/")
		for i := range inner[:len(inner)-1] {
			g = child(g, path.Join(id, strings.Join(inner[:i+1], "/")))
		}
		g["apps"] = append(g["apps"].([]any), c.render(a, rel, c.embeds("tasks")))
	}
	if !found {
		return nil
	}
	if root["version"] = version; version == "" {
		root["version"] = stamp(c.now)
	}
	return root
}

func newGroup(id string) map[string]any {
	return map[string]any{"id": id, "apps": []any{}, "groups": []any{}, "pods": []any{}, "dependencies": []any{}, "version": nil}
}

func child(g map[string]any, id string) map[string]any {
	for _, v := range g["groups"].([]any) {
		if m := v.(map[string]any); m["id"] == id {
			return m
		}
	}
	m := newGroup(id)
	g["groups"] = append(g["groups"].([]any), m)
	return m
}

// below reports whether an app's id lies inside a group.
func below(app, group string) bool {
	return group == "/" || strings.HasPrefix(app, group+"/")
}

// putGroup creates or changes the apps of a group document. All of them are
// judged before the first is committed. Apps that the document does not name
// stay.
func (c *call) putGroup(id string) error {
	doc, err := c.object()
	if err != nil {
		return err
	}
	if s, ok := doc["id"].(string); ok {
		id = join(id, s)
	}
	if c.r.Method == http.MethodPost && id != "/" && c.group(id) != nil {
		return &failure{status: http.StatusConflict, Message: "Group " + id + " is already created. Use PUT to change this group."}
	}
	var changes []*change
	if err := c.flatten(id, doc, &changes); err != nil {
		return err
	}
	if c.flag("dryRun") {
		steps := []any{}
		for _, ch := range changes {
			kind := "StartApplication"
			if ch.app != nil {
				kind = "RestartApplication"
			}
			steps = append(steps, map[string]any{"actions": []any{map[string]any{"action": kind, "app": ch.spec.ID}}})
		}
		return c.reply(http.StatusOK, map[string]any{"steps": steps})
	}
	if c.r.Method == http.MethodPost {
		c.w.Header().Set("Location", "/v2/groups"+id)
	}
	return c.commitAll(changes)
}

// join resolves a relative id against a group.
func join(group, id string) string {
	if strings.HasPrefix(id, "/") {
		return path.Clean(id)
	}
	return path.Join(group, id)
}

// maxGroupDepth bounds nesting of a group document.
const maxGroupDepth = 20

// flatten judges the apps of a group and of its groups.
func (c *call) flatten(id string, doc map[string]any, changes *[]*change) error {
	if strings.Count(id, "/") > maxGroupDepth {
		return invalid("Object is not valid", []detail{{"/groups", []string{"are nested too deeply"}}})
	}
	for _, k := range sortedKeys(doc) {
		switch k {
		case "id", "apps", "groups", "version", "dependencies", "pods", "enforceRole":
		default:
			return invalid("Object is not valid", []detail{{"/" + k, []string{"is not a known field"}}})
		}
	}
	if pods, _ := doc["pods"].([]any); len(pods) > 0 {
		return invalid("Object is not valid", []detail{{"/pods", []string{"are not supported: use apps"}}})
	}
	apps, _ := doc["apps"].([]any)
	for _, v := range apps {
		app, err := asObject(v)
		if err != nil {
			return err
		}
		name, _ := app["id"].(string)
		app = maps.Clone(app)
		app["id"] = join(id, name)
		ch, err := c.prepare(app, "", false)
		if err != nil {
			return err
		}
		*changes = append(*changes, ch)
	}
	groups, _ := doc["groups"].([]any)
	for _, v := range groups {
		inner, err := asObject(v)
		if err != nil {
			return err
		}
		name, _ := inner["id"].(string)
		if name == "" {
			return invalid("Object is not valid", []detail{{"/groups/id", []string{"error.path.missing"}}})
		}
		if err := c.flatten(join(id, name), inner, changes); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) deleteGroup(id string) error {
	if id == "/" && !c.flag("force") {
		return unprocessable("Deleting all apps needs ?force=true")
	}
	var commands []command.Command
	for a := range state.Apps.All(c.snap) {
		rel := c.release(a)
		if rel == nil || !below(publicID(rel), id) {
			continue
		}
		if a.Deployment != "" && !c.flag("force") {
			return locked(a.Deployment)
		}
		commands = append(commands, &command.DeleteApp{App: a.ID, At: c.now})
	}
	if len(commands) == 0 && id != "/" {
		return notFound("Group '%s' does not exist", id)
	}
	if err := c.proposeAll(commands); err != nil {
		return err
	}
	return c.replyDeployment(http.StatusOK, c.NewID())
}
