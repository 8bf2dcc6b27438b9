package marathon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appliance/node/model"
	raftcommand "appliance/raft/command"
	"appliance/raft/state"
	"appliance/sched"
	"appliance/sched/schedtest"
)

// notejam is a template as people wrote them for Marathon 1.4.
const notejam = `{
  "id": "/test/notejam", "cmd": null, "cpus": 0.5, "mem": 64, "disk": 0, "instances": 3,
  "acceptedResourceRoles": ["*"],
  "constraints": [["env", "CLUSTER", "test"]],
  "container": {
    "type": "DOCKER", "volumes": [{"containerPath": "/data", "hostPath": "/srv/notejam", "mode": "RW"}],
    "docker": {
      "image": "registry:5000/notejam:1.0", "network": "BRIDGE", "privileged": false, "forcePullImage": true,
      "parameters": [{"key": "hostname", "value": "notejam"}, {"key": "env", "value": "A=b"}],
      "portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": 10000, "protocol": "tcp", "labels": {}}]
    }
  },
  "env": {"SERVICE_NAME": "notejam", "SERVICE_TAGS": "test"},
  "labels": {"HAPROXY_0_VHOST": "app-test"},
  "healthChecks": [{"protocol": "HTTP", "path": "/health", "portIndex": 0, "gracePeriodSeconds": 30, "intervalSeconds": 5, "timeoutSeconds": 2, "maxConsecutiveFailures": 3, "ignoreHttp1xx": false}],
  "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5},
  "backoffSeconds": 1, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600,
  "taskKillGracePeriodSeconds": 10, "ports": [10000], "requirePorts": false, "uris": [], "dependencies": []
}`

type rig struct {
	*testing.T
	*schedtest.Cluster
	server *Server
	url    string
}

// newRig is a dialect on a cluster; live also runs the loop and the agents.
func newRig(t *testing.T, live bool) *rig {
	c := schedtest.New(t)
	c.AddAgent(t, "ms1", "test")
	c.AddAgent(t, "ms2", "test")
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := &Server{Store: c.Store, Proposer: c, NewID: c.NewID, Log: log, DefaultEnv: func() string { return "test" }, Leader: func() string { return "10.0.0.1:8080" }}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	if live {
		l := &sched.Loop{Store: c.Store, Proposer: c, NewID: c.NewID, Log: log}
		schedtest.Start(t, func(ctx context.Context) { _ = l.Run(ctx) })
		schedtest.Start(t, c.Agents)
	}
	return &rig{T: t, Cluster: c, server: s, url: h.URL}
}

// do sends a request and gives status and body.
func (r *rig) do(method, path, body string) (int, map[string]any) {
	r.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil && len(raw) > 0 && raw[0] == '{' {
		r.Fatalf("%s: %v", raw, err)
	}
	out["_raw"] = string(raw)
	return res.StatusCode, out
}

// want sends a request and demands a status.
func (r *rig) want(status int, method, path, body string) map[string]any {
	r.Helper()
	got, out := r.do(method, path, body)
	if got != status {
		r.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, out["_raw"])
	}
	return out
}

func (r *rig) idle(app string) {
	r.Helper()
	r.Eventually(r.T, app+" is deployed", func(s *state.Snapshot) bool {
		a := state.Apps.Get(s, app)
		return a != nil && a.Deployment == "" && schedtest.Sum(schedtest.Ready(s, app)) == a.Instances
	})
}

func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

func TestTemplateDeploysUnchanged(t *testing.T) {
	r := newRig(t, true)
	made := r.want(201, "POST", "/v2/apps", notejam)
	if made["id"] != "/test/notejam" || len(made["deployments"].([]any)) != 1 {
		t.Errorf("answer %v", made)
	}
	r.idle("/test/notejam")
	app := at(r.want(200, "GET", "/v2/apps//test/notejam", ""), "app").(map[string]any)
	if app["tasksRunning"] != 3.0 || app["tasksHealthy"] != 3.0 || len(app["tasks"].([]any)) != 3 || len(app["deployments"].([]any)) != 0 {
		t.Errorf("counts %v", app)
	}
	if at(app, "container", "docker", "image") != "registry:5000/notejam:1.0" || at(app, "upgradeStrategy", "maximumOverCapacity") != 0.5 {
		t.Errorf("what was put is not what comes back: %v", app)
	}
	task := app["tasks"].([]any)[0].(map[string]any)
	if task["appId"] != "/test/notejam" || task["host"] == "" || len(task["ports"].([]any)) != 1 || !strings.HasPrefix(task["id"].(string), "test_notejam.") {
		t.Errorf("task %v", task)
	}
	spec := state.Releases.Get(r.Store.Snapshot(), model.ReleaseKey("/test/notejam", 1)).Spec
	if len(spec.Routes) != 1 || spec.Routes[0].Host != "app-test" || spec.Env["A"] != "b" || !spec.ForcePull || spec.Network != "bridge" ||
		spec.Checks[0].Interval.D() != 5*time.Second || spec.KillGrace.D() != 10*time.Second || spec.Volumes[0].HostPath != "/srv/notejam" {
		t.Errorf("spec %+v", spec)
	}
}

func TestLifeOfAnApp(t *testing.T) {
	r := newRig(t, true)
	r.want(201, "PUT", "/v2/apps/test/notejam", notejam)
	r.idle("/test/notejam")
	scaled := r.want(200, "PUT", "/v2/apps/test/notejam", `{"instances":5}`)
	if scaled["deploymentId"] == "" || scaled["version"] == "" {
		t.Errorf("answer %v", scaled)
	}
	r.idle("/test/notejam")
	if a := state.Apps.Get(r.Store.Snapshot(), "/test/notejam"); a.Instances != 5 || a.Release != 1 {
		t.Errorf("scaling made a release: %+v", a)
	}
	r.want(200, "PUT", "/v2/apps/test/notejam", `{"env":{"NEW":"1"}}`)
	r.idle("/test/notejam")
	app := at(r.want(200, "GET", "/v2/apps/test/notejam", ""), "app")
	if at(app, "env", "NEW") != "1" || at(app, "env", "SERVICE_NAME") != nil || at(app, "instances") != 5.0 || at(app, "cpus") != 0.5 {
		t.Errorf("partial update: %v", app)
	}
	r.want(200, "POST", "/v2/apps/test/notejam/restart", "")
	r.idle("/test/notejam")
	versions := r.want(200, "GET", "/v2/apps/test/notejam/versions", "")["versions"].([]any)
	if len(versions) != 3 {
		t.Fatalf("versions %v", versions)
	}
	first := versions[2].(string)
	if old := r.want(200, "GET", "/v2/apps/test/notejam/versions/"+first, ""); at(old, "env", "SERVICE_NAME") != "notejam" {
		t.Errorf("version %v", old)
	}
	r.want(200, "PUT", "/v2/apps/test/notejam", `{"version":"`+first+`"}`)
	r.idle("/test/notejam")
	if a := state.Apps.Get(r.Store.Snapshot(), "/test/notejam"); a.Release != 1 {
		t.Errorf("rolled back to %d", a.Release)
	}
	tasks := r.want(200, "GET", "/v2/apps/test/notejam/tasks", "")["tasks"].([]any)
	id := tasks[0].(map[string]any)["id"].(string)
	r.want(200, "DELETE", "/v2/apps/test/notejam/tasks/"+id+"?scale=true", "")
	r.idle("/test/notejam")
	if a := state.Apps.Get(r.Store.Snapshot(), "/test/notejam"); a.Instances != 4 {
		t.Errorf("%d instances after a kill with scale", a.Instances)
	}
	r.want(200, "DELETE", "/v2/apps/test/notejam", "")
	r.want(404, "GET", "/v2/apps/test/notejam", "")
	if m := r.want(404, "DELETE", "/v2/apps/test/notejam", "")["message"]; m != "App '/test/notejam' does not exist" {
		t.Error(m)
	}
}

func TestLockForceAndRollback(t *testing.T) {
	r := newRig(t, false) // nothing moves: the deployment stays
	r.want(201, "POST", "/v2/apps", notejam)
	locked := r.want(409, "PUT", "/v2/apps/test/notejam", `{"instances":9}`)
	id := at(locked["deployments"].([]any)[0], "id").(string)
	if !strings.HasPrefix(locked["message"].(string), "App is locked by one or more deployments.") {
		t.Error(locked["message"])
	}
	if exists := r.want(409, "POST", "/v2/apps", notejam); exists["deployments"] != nil || exists["message"] != "An app with id [/test/notejam] already exists." {
		t.Errorf("%v", exists)
	}
	if raw := r.want(200, "GET", "/v2/deployments", "")["_raw"].(string); !strings.Contains(raw, id) || !strings.Contains(raw, "StartApplication") {
		t.Error(raw)
	}
	forced := r.want(200, "PUT", "/v2/apps/test/notejam?force=true", `{"instances":9}`)
	r.want(404, "DELETE", "/v2/deployments/"+id, "")
	r.want(200, "DELETE", "/v2/deployments/"+forced["deploymentId"].(string), "")
	if a := state.Apps.Get(r.Store.Snapshot(), "/test/notejam"); a.Instances != 3 {
		t.Errorf("rolled back to %d instances", a.Instances)
	}
	again := state.Apps.Get(r.Store.Snapshot(), "/test/notejam").Deployment
	r.want(202, "DELETE", "/v2/deployments/"+again+"?force=true", "")
	if d := state.Deployments.Get(r.Store.Snapshot(), again); d.State != model.DeploymentCancelled {
		t.Error(d.State)
	}
}

func TestBadDocuments(t *testing.T) {
	r := newRig(t, false)
	with := func(fields string) string {
		return `{"id":"/test/a","container":{"docker":{"image":"a","network":"BRIDGE"}},` + fields + `}`
	}
	for _, c := range []struct {
		name, body string
		status     int
		path, says string
	}{
		{"syntax", `{"id":`, 400, "", ""},
		{"not an object", `[]`, 422, "/", "error.expected.jsobject"},
		{"no id", `{}`, 422, "/id", "error.path.missing"},
		{"unknown field", with(`"instnaces":3`), 422, "/instnaces", "not a known field"},
		{"unknown inner field", `{"id":"/test/a","container":{"docker":{"image":"a","networks":"x"}}}`, 422, "/container/docker/networks", "not a known field"},
		{"wrong type", with(`"cpus":"one"`), 422, "/cpus", "error.expected.jsnumber"},
		{"wrong type in list", with(`"constraints":[["hostname",1]]`), 422, "/constraints(0)(1)", "error.expected.jsstring"},
		{"environment", `{"id":"/staging/x/y","container":{"docker":{"image":"a"}}}`, 201, "", ""}, // goes to the default one
		{"negative", with(`"instances":-1`), 422, "/instances", "negative"},
		{"policy", with(`"upgradeStrategy":{"minimumHealthCapacity":1.5}`), 422, "/upgradeStrategy/minimumHealthCapacity", "is greater than 1"},
		{"operator", with(`"constraints":[["hostname","NEAR"]]`), 422, "/constraints(0)", "not known"},
		{"uris", with(`"uris":["http://a/b.tgz"]`), 422, "/uris", "not supported"},
		{"no image", `{"id":"/test/a","cmd":"sleep 1"}`, 422, "/image", "image"},
		{"user network", `{"id":"/test/a","container":{"docker":{"image":"a","network":"USER"}}}`, 422, "/container/docker/network", "not supported"},
		{"parameter", `{"id":"/test/a","container":{"docker":{"image":"a","parameters":[{"key":"device","value":"x"}]}}}`, 422, "/container/docker/parameters(0)/key", "not supported"},
		{"check port", with(`"healthChecks":[{"protocol":"HTTP","port":99}]`), 422, "/healthChecks(0)/port", "portIndex"},
		{"id", `{"id":"/test/A B","container":{"docker":{"image":"a"}}}`, 422, "/id", "a-z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := r.Store.Index()
			status, out := r.do("POST", "/v2/apps", c.body)
			if status != c.status {
				t.Fatalf("status %d: %s", status, out["_raw"])
			}
			if c.path == "" {
				return
			}
			found := false
			details, _ := out["details"].([]any)
			for _, d := range details {
				if at(d, "path") == c.path && strings.Contains(at(d, "errors").([]any)[0].(string), c.says) {
					found = true
				}
			}
			if !found {
				t.Errorf("want %q at %s: %s", c.says, c.path, out["_raw"])
			}
			if r.Store.Index() != before {
				t.Error("bad input changed something")
			}
		})
	}
}

func TestDefaultEnvironment(t *testing.T) {
	r := newRig(t, true)
	made := r.want(201, "POST", "/v2/apps", strings.Replace(notejam, "/test/notejam", "shop/cart", 1))
	if made["id"] != "/shop/cart" {
		t.Error(made["id"])
	}
	r.idle("/test/shop/cart")
	if got := at(r.want(200, "GET", "/v2/apps/shop/cart", ""), "app", "id"); got != "/shop/cart" {
		t.Error(got)
	}
	r.server.DefaultEnv = nil
	r.want(422, "POST", "/v2/apps", strings.Replace(notejam, "/test/notejam", "/nowhere/x", 1))
}

func TestHostModeAndOldForms(t *testing.T) {
	spec := func(body string) *model.AppSpec {
		t.Helper()
		dec := json.NewDecoder(strings.NewReader(body))
		dec.UseNumber()
		var doc map[string]any
		if err := dec.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		s, details := parse(doc, "/test/a")
		if len(details) > 0 {
			t.Fatal(details)
		}
		return s
	}
	s := spec(`{"container":{"docker":{"image":"a","network":"HOST"}},"ports":[8080,0],"requirePorts":true,"healthChecks":[{"protocol":"MESOS_TCP","port":8080}]}`)
	if s.Network != "host" || len(s.Ports) != 2 || s.Ports[0].HostPort != 8080 || s.Checks[0].Type != "tcp" || s.Checks[0].Port != 0 {
		t.Errorf("%+v", s)
	}
	if s = spec(`{"container":{"docker":{"image":"a"}}}`); s.Network != "host" || len(s.Ports) != 1 {
		t.Errorf("default port: %+v", s)
	}
	if s = spec(`{"networks":[{"mode":"container/bridge"}],"container":{"docker":{"image":"a"},"portMappings":[{"containerPort":80}]}}`); s.Network != "bridge" || s.Ports[0].ContainerPort != 80 {
		t.Errorf("%+v", s)
	}
	if s = spec(`{"container":{"docker":{"image":"a"}},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`); s.Upgrade.MinHealth != 0 || s.Upgrade.MaxOver == 0 {
		t.Errorf("%+v", s.Upgrade)
	}
	if s = spec(`{"container":{"docker":{"image":"a"},"volumes":[{"containerPath":"/d","mode":"RO","external":{"name":"data","provider":"dvdi"}}]}}`); s.Volumes[0].Name != "data" || !s.Volumes[0].ReadOnly {
		t.Errorf("%+v", s.Volumes)
	}
}

// An app that was deployed otherwise can be read and changed here, and keeps
// what this dialect cannot say.
func TestForeignAppRoundTrip(t *testing.T) {
	r := newRig(t, true)
	r.Deploy(t, model.AppSpec{ID: "/test/a", Image: "a:1", Instances: 1, Network: "bridge", Shell: "run", Priority: 3, Routes: []model.Route{{Host: "a"}},
		Ports:   []model.Port{{Name: "http", ContainerPort: 80}},
		Checks:  []model.Check{{Type: "http", Path: "/"}, {Type: "command", Command: []string{"test", "it's"}}},
		Volumes: []model.VolumeMount{{Name: "data", Path: "/data"}}, Constraints: []model.Constraint{{Attribute: "hostname", Operator: "MAX_PER", Value: "2"}}})
	r.Must(t, &raftcommand.PutVolume{Volume: model.Volume{Name: "data"}})
	r.idle("/test/a")
	app, _ := json.Marshal(at(r.want(200, "GET", "/v2/apps/test/a", ""), "app"))
	r.want(200, "PUT", "/v2/apps/test/a", string(app))
	r.idle("/test/a")
	if a := state.Apps.Get(r.Store.Snapshot(), "/test/a"); a.Release != 1 {
		spec := func(v uint64) string {
			raw, _ := json.Marshal(state.Releases.Get(r.Store.Snapshot(), model.ReleaseKey("/test/a", v)).Spec)
			return string(raw)
		}
		t.Fatalf("putting the answer back made a release:\n%s\n%s", spec(1), spec(2))
	}
	r.want(200, "PUT", "/v2/apps/test/a", `{"labels":{"x":"z"}}`)
	r.idle("/test/a")
	r.want(200, "PUT", "/v2/apps/test/a", `{"labels":{"x":"y"}}`)
	r.idle("/test/a")
	s := state.Releases.Get(r.Store.Snapshot(), model.ReleaseKey("/test/a", 3)).Spec
	if s.Priority != 3 || len(s.Routes) != 1 || s.Volumes[0].Name != "data" || s.Ports[0].Name != "http" || s.Checks[1].Command[1] != "it's" || s.Labels["x"] != "y" || s.Shell != "run" {
		t.Errorf("%+v", s)
	}
}

// Clients read a whole app, change one field and put all of it back.
func TestAnswerCanBePutBack(t *testing.T) {
	r := newRig(t, true)
	for name, doc := range map[string]string{
		"/test/notejam": notejam,
		"/test/host":    `{"id":"/test/host","container":{"docker":{"image":"a","network":"HOST"}},"args":["x"]}`,
		"/test/ports":   `{"id":"/test/ports","container":{"docker":{"image":"a"}},"ports":[9000,0]}`,
		"/test/bare":    `{"id":"/test/bare","container":{"docker":{"image":"a"}},"portDefinitions":[]}`,
	} {
		r.want(201, "POST", "/v2/apps", doc)
		r.idle(name)
		app, err := json.Marshal(at(r.want(200, "GET", "/v2/apps"+name, ""), "app"))
		if err != nil {
			t.Fatal(err)
		}
		r.want(200, "PUT", "/v2/apps"+name, string(app))
		r.idle(name)
		if a := state.Apps.Get(r.Store.Snapshot(), name); a.Release != 1 {
			t.Errorf("%s: putting the answer back made release %d\n%s", name, a.Release, app)
		}
	}
}

func TestGroups(t *testing.T) {
	r := newRig(t, true)
	app := func(id string) string {
		return `{"id":"` + id + `","container":{"docker":{"image":"a","network":"BRIDGE"}}}`
	}
	bad := `{"id":"/test/shop","apps":[` + app("cart") + `,{"id":"broken","instances":-1}]}`
	before := r.Store.Index()
	r.want(422, "POST", "/v2/groups", bad)
	if r.Store.Index() != before {
		t.Error("half a group was created")
	}
	r.want(200, "PUT", "/v2/groups", `{"id":"/test/shop","apps":[`+app("cart")+`],"groups":[{"id":"pay","apps":[`+app("card")+`]}]}`)
	r.idle("/test/shop/cart")
	r.idle("/test/shop/pay/card")
	g := r.want(200, "GET", "/v2/groups/test/shop", "")
	if at(g["apps"].([]any)[0], "id") != "/test/shop/cart" || at(g["groups"].([]any)[0], "id") != "/test/shop/pay" {
		t.Errorf("%v", g)
	}
	r.want(409, "POST", "/v2/groups", `{"id":"/test/shop"}`)
	if list := r.want(200, "GET", "/v2/apps/test/shop/*", "")["*"].([]any); len(list) != 2 {
		t.Errorf("%v", list)
	}
	r.want(200, "DELETE", "/v2/groups/test/shop", "")
	r.want(404, "GET", "/v2/groups/test/shop", "")
}

func TestQueueSaysWhy(t *testing.T) {
	r := newRig(t, true)
	r.want(201, "POST", "/v2/apps", strings.Replace(notejam, `"cpus": 0.5`, `"cpus": 64`, 1))
	r.Eventually(t, "it waits", func(s *state.Snapshot) bool { return state.Waiting.Get(s, "/test/notejam") != nil })
	raw := r.want(200, "GET", "/v2/queue", "")["_raw"].(string)
	if !strings.Contains(raw, `"InsufficientCpus"`) || !strings.Contains(raw, `"count":3`) {
		t.Error(raw)
	}
	r.want(204, "DELETE", "/v2/queue/test/notejam/delay", "")
}

func TestSmallResources(t *testing.T) {
	r := newRig(t, true)
	r.want(201, "POST", "/v2/apps", notejam)
	r.idle("/test/notejam")
	for path, says := range map[string]string{
		"/ping": "pong", "/v2/info": `"name":"marathon"`, "/v2/leader": `"leader":"10.0.0.1:8080"`, "/metrics": "app.count",
		"/v2/tasks?status=running": "test_notejam.", "/v2/apps?label=HAPROXY_0_VHOST%3D%3Dapp-test": "/test/notejam", "/v2/apps?embed=apps.tasks": "test_notejam.",
	} {
		if raw := r.want(200, "GET", path, "")["_raw"].(string); !strings.Contains(raw, says) {
			t.Errorf("%s: %s", path, raw)
		}
	}
	if raw := r.want(200, "GET", "/v2/apps?label=HAPROXY_0_VHOST!%3Dapp-test", "")["_raw"].(string); strings.Contains(raw, "notejam") {
		t.Error(raw)
	}
	r.want(404, "GET", "/v2/nothing", "")
	r.want(405, "DELETE", "/v2/info", "")
	r.want(413, "POST", "/v2/apps", `{"id":"`+strings.Repeat("x", maxBody)+`"}`)
}

func TestEvents(t *testing.T) {
	r := newRig(t, true)
	req, _ := http.NewRequest("GET", r.url+"/v2/events", nil)
	r.want(405, "GET", "/v2/events", "")
	req.Header.Set("Accept", "text/event-stream")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := http.DefaultClient.Do(req.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	next := func() (kind string, data map[string]any) {
		for lines.Scan() {
			if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				kind = k
			}
			if d, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(d), &data); err != nil {
					t.Fatal(err)
				}
				return kind, data
			}
		}
		t.Fatal("the stream ended: ", lines.Err())
		return "", nil
	}
	if kind, _ := next(); kind != "event_stream_attached" {
		t.Fatal(kind)
	}
	r.want(201, "POST", "/v2/apps", notejam)
	seen := map[string]bool{}
	for !seen["deployment_success"] {
		kind, data := next()
		seen[kind] = true
		if data["eventType"] != kind || data["timestamp"] == nil {
			t.Errorf("%s: %v", kind, data)
		}
		if kind == "status_update_event" && (data["appId"] != "/test/notejam" || data["host"] == nil) {
			t.Errorf("%v", data)
		}
	}
	for _, kind := range []string{"api_post_event", "deployment_info", "status_update_event", "health_status_changed_event", "deployment_step_success"} {
		if !seen[kind] {
			t.Errorf("no %s before the end", kind)
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(notejam))
	f.Add([]byte(`{"id":null,"constraints":[[]],"healthChecks":[{}],"networks":[{}],"container":{"volumes":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		var doc map[string]any
		if dec.Decode(&doc) != nil {
			return
		}
		spec, details := parse(doc, "/test/a")
		if len(details) == 0 {
			_ = sched.Validate(spec)
		}
	})
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"a": "1", "b": "x"}
	for s, want := range map[string]bool{
		"": true, "a": true, "c": false, "a==1": true, "a==2": false, "a!=2": true, "c!=2": true, "a==1,b==x": true, "a==1, b==y": false,
		"a in (1, 2)": true, "a notin (1)": false, "b notin (1),a in (1)": true,
	} {
		match, err := parseSelector(s)
		if err != nil || match(labels) != want {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, bad := range []string{"a=", ",", "a in 1", "a,,b"} {
		if _, err := parseSelector(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("a==1, b in (x,y)")
	f.Fuzz(func(t *testing.T, s string) {
		if match, err := parseSelector(s); err == nil {
			match(map[string]string{"a": "1"})
		}
	})
}
