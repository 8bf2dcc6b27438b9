package marathon

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"strings"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
)

// change is one accepted document: what it makes of an app.
type change struct {
	spec   *model.AppSpec
	app    *model.App // before; nil if it is new
	digest string
	scale  bool // only the number of instances differs
}

// prepare judges a document for the app with the id, which the document may
// give itself. Unless replace is set, fields that it does not name stay as
// they are. Nothing is written.
func (c *call) prepare(doc map[string]any, id string, replace bool) (*change, error) {
	if id == "" {
		s, _ := doc["id"].(string)
		if s == "" {
			return nil, invalid("Object is not valid", []detail{{"/id", []string{"error.path.missing"}}})
		}
		id = c.resolve(s)
	}
	ch := &change{app: state.Apps.Get(c.snap, id)}
	var old *model.Release
	if ch.app != nil {
		old = c.release(ch.app)
	}
	merged := doc
	if old != nil && !replace {
		merged = merge(c.wish(ch.app, old), doc)
	}
	if _, ok := merged["id"]; !ok {
		merged = maps.Clone(merged)
		merged["id"] = id
	}
	spec, details := parse(merged, id)
	if len(details) > 0 {
		return nil, invalid("Object is not valid", details)
	}
	if err := c.environment(id); err != nil {
		return nil, err
	}
	if old != nil {
		keepOurs(spec, &old.Spec)
	}
	if err := sched.Validate(spec); err != nil {
		return nil, err
	}
	ch.spec = spec
	ch.scale = old != nil && sameButSize(spec, &old.Spec)
	if c.Admit != nil && !ch.scale {
		ctx, cancel := context.WithTimeout(c.r.Context(), writeTimeout)
		defer cancel()
		digest, err := c.Admit(ctx, spec)
		if err != nil {
			return nil, err
		}
		ch.digest = digest
	}
	return ch, nil
}

// environment refuses an id that belongs nowhere, before anything else does.
func (c *call) environment(id string) error {
	env, name := model.SplitAppID(id)
	if state.Environments.Get(c.snap, env) != nil || name == "" {
		return nil // Validate judges the form of the id
	}
	var known []string
	for e := range state.Environments.All(c.snap) {
		known = append(known, e.Name)
	}
	return invalid("Object is not valid", []detail{{"/id", []string{
		"there is no environment " + env + "; the first part of an id names one of: " + strings.Join(known, ", ")}}})
}

// wish is the document of an app as it is now.
func (c *call) wish(a *model.App, rel *model.Release) map[string]any {
	doc := definition(rel)
	doc["instances"] = json.Number(jsonInt(a.Instances))
	return doc
}

func jsonInt(n int) string { b, _ := json.Marshal(n); return string(b) }

// rivals are fields of which the newer one wins: they say the same in
// different ways.
var rivals = [][]string{{"cmd", "args"}, {"ports", "portDefinitions"}, {"uris", "fetch"}}

// merge lays the fields of a document over another's.
func merge(old, doc map[string]any) map[string]any {
	out := maps.Clone(old)
	for _, group := range rivals {
		for _, k := range group {
			if doc[k] != nil {
				for _, other := range group {
					delete(out, other)
				}
			}
		}
	}
	maps.Copy(out, doc)
	return out
}

// keepOurs is a three-way merge: what a document does not change of an app
// stays exactly as it was, also what no Marathon document can express, such
// as routes, priority or the defaults of checks.
func keepOurs(spec, old *model.AppSpec) {
	base, faults := parse(definition(&model.Release{App: old.ID, Spec: *old}), old.ID)
	if len(faults) > 0 {
		return // it came another way and has something that this dialect refuses
	}
	to, from, was := reflect.ValueOf(spec).Elem(), reflect.ValueOf(base).Elem(), reflect.ValueOf(old).Elem()
	for i := range to.NumField() {
		switch to.Type().Field(i).Name {
		case "Instances", "Marathon":
			continue
		}
		if sameJSON(to.Field(i).Interface(), from.Field(i).Interface()) {
			to.Field(i).Set(was.Field(i))
		}
	}
}

// sameButSize reports whether two specs are the same except for the number of
// instances.
func sameButSize(a, b *model.AppSpec) bool {
	x, y := *a, *b
	x.Instances, y.Instances = 0, 0
	x.Marathon, y.Marathon = nil, nil
	return sameJSON(x, y)
}

func sameJSON(a, b any) bool {
	p, errA := json.Marshal(a)
	q, errB := json.Marshal(b)
	if errA != nil || errB != nil {
		return false
	}
	if bytes.Equal(p, q) {
		return true
	}
	empty := func(raw []byte) bool { return string(raw) == "null" || string(raw) == "{}" || string(raw) == "[]" }
	return empty(p) && empty(q)
}

// toCommand decides the entry for a change. The app must still be as it was
// when the change was judged.
func (c *call) toCommand(ch *change) (command.Command, string) {
	if ch.scale {
		d := c.newDeployment("scale")
		return &command.ScaleApp{App: ch.app.ID, Instances: ch.spec.Instances, Deployment: d}, d.ID
	}
	d := c.newDeployment("deploy")
	cmd := &command.CreateRelease{
		Release:   model.Release{App: ch.spec.ID, Spec: *ch.spec, Digest: ch.digest, CreatedAt: c.now},
		Instances: ch.spec.Instances, Deployment: d, MustNotExist: ch.app == nil,
	}
	if ch.app != nil {
		cmd.IfModified = ch.app.ModifyIndex
	}
	return cmd, d.ID
}

// commit makes one change come true and gives the deployment. A running
// deployment is superseded by force only.
func (c *call) commit(ch *change, force bool) (string, error) {
	if ch.app != nil && ch.app.Deployment != "" && !force {
		return "", locked(ch.app.Deployment)
	}
	cmd, id := c.toCommand(ch)
	_, err := c.propose(cmd)
	return id, err
}

// commitAll commits several changes in one entry and answers with the first
// deployment.
func (c *call) commitAll(changes []*change) error {
	var commands []command.Command
	first := c.NewID()
	for i, ch := range changes {
		if ch.app != nil && ch.app.Deployment != "" && !c.flag("force") {
			return locked(ch.app.Deployment)
		}
		cmd, id := c.toCommand(ch)
		if i == 0 {
			first = id
		}
		commands = append(commands, cmd)
	}
	if err := c.proposeAll(commands); err != nil {
		return err
	}
	return c.replyDeployment(http.StatusOK, first)
}

func (c *call) proposeAll(commands []command.Command) error {
	if len(commands) == 0 {
		return nil
	}
	batch, err := command.NewBatch(commands...)
	if err != nil {
		return err
	}
	res, err := c.propose(batch)
	if err != nil {
		return err
	}
	var each []command.Result
	if err := res.Decode(&each); err != nil {
		return err
	}
	for _, r := range each {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}
