package sched

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

func TestValidate(t *testing.T) {
	good := func() model.AppSpec {
		return model.AppSpec{ID: "/test/notejam", Image: "notejam:1", Instances: 3, Resources: model.Resources{CPUs: 0.5, Memory: 64},
			Ports: []model.Port{{Name: "http", ContainerPort: 8080}}, Checks: []model.Check{{Type: "http", Path: "/health"}},
			Volumes: []model.VolumeMount{{Name: "notejam", Path: "/data"}}, Routes: []model.Route{{Host: "app-test"}}}
	}
	spec := good()
	if err := Validate(&spec); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	limit := func(c ...model.Constraint) func(*model.AppSpec) {
		return func(s *model.AppSpec) { s.Constraints = c }
	}
	for _, c := range []struct {
		name   string
		change func(*model.AppSpec)
		path   string
	}{
		{"no id", func(s *model.AppSpec) { s.ID = "" }, "/id"},
		{"relative id", func(s *model.AppSpec) { s.ID = "notejam" }, "/id"},
		{"no environment", func(s *model.AppSpec) { s.ID = "/notejam" }, "/id"},
		{"capital id", func(s *model.AppSpec) { s.ID = "/test/Notejam" }, "/id"},
		{"long id", func(s *model.AppSpec) { s.ID = "/test/" + strings.Repeat("a/", 150) + "a" }, "/id"},
		{"no image", func(s *model.AppSpec) { s.Image = "" }, "/image"},
		{"cmd and args", func(s *model.AppSpec) { s.Shell, s.Args = "x", []string{"y"} }, "/cmd"},
		{"negative instances", func(s *model.AppSpec) { s.Instances = -1 }, "/instances"},
		{"too many instances", func(s *model.AppSpec) { s.Instances = 1e6 }, "/instances"},
		{"negative cpus", func(s *model.AppSpec) { s.Resources.CPUs = -1 }, "/cpus"},
		{"absurd memory", func(s *model.AppSpec) { s.Resources.Memory = 1e12 }, "/mem"},
		{"policy", func(s *model.AppSpec) { s.Upgrade.MinHealth = 2 }, "/upgradeStrategy/minimumHealthCapacity"},
		{"network", func(s *model.AppSpec) { s.Network = "weave" }, "/network"},
		{"port range", func(s *model.AppSpec) { s.Ports[0].HostPort = 70000 }, "/ports(0)/hostPort"},
		{"port twice", func(s *model.AppSpec) {
			s.Ports = []model.Port{{ContainerPort: 80, HostPort: 9000}, {ContainerPort: 81, HostPort: 9000}}
		}, "/ports(1)/hostPort"},
		{"protocol", func(s *model.AppSpec) { s.Ports[0].Protocol = "sctp" }, "/ports(0)/protocol"},
		{"volume without source", func(s *model.AppSpec) { s.Volumes[0].Name = "" }, "/volumes(0)"},
		{"volume climbs", func(s *model.AppSpec) { s.Volumes[0].Path = "/data/../etc" }, "/volumes(0)/path"},
		{"check type", func(s *model.AppSpec) { s.Checks[0].Type = "icmp" }, "/checks(0)/type"},
		{"check port", func(s *model.AppSpec) { s.Checks[0].Port = 3 }, "/checks(0)/port"},
		{"route host", func(s *model.AppSpec) { s.Routes[0].Host = "a b" }, "/routes(0)/host"},
		{"env name", func(s *model.AppSpec) { s.Env = map[string]string{"A=B": "c"} }, "/env"},
		{"operator", limit(model.Constraint{Attribute: "a", Operator: "NEAR"}), "/constraints(0)"},
		{"pattern", limit(model.Constraint{Attribute: "a", Operator: "LIKE", Value: "("}), "/constraints(0)"},
		{"max per", limit(model.Constraint{Attribute: "a", Operator: "MAX_PER", Value: "many"}), "/constraints(0)"},
		{"both values", limit(model.Constraint{Attribute: "a", Operator: "IS", Value: "x"}, model.Constraint{Attribute: "a", Operator: "CLUSTER", Value: "y"}), "/constraints(1)"},
		{"unique in one", limit(model.Constraint{Attribute: "a", Operator: "UNIQUE"}, model.Constraint{Attribute: "a", Operator: "IS", Value: "y"}), "/constraints(0)"},
		{"like excludes is", limit(model.Constraint{Attribute: "a", Operator: "LIKE", Value: "x.*"}, model.Constraint{Attribute: "a", Operator: "IS", Value: "y"}), "/constraints(0)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := good()
			c.change(&spec)
			var invalid *InvalidSpec
			err := Validate(&spec)
			if !errors.As(err, &invalid) || model.CodeOf(err) != model.CodeInvalid {
				t.Fatalf("error %v", err)
			}
			if len(invalid.Fields) != 1 || invalid.Fields[0].Path != c.path {
				t.Errorf("faults %+v, want one at %s", invalid.Fields, c.path)
			}
		})
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"id":"/test/a","image":"a","constraints":[{"attribute":"a","operator":"LIKE","value":"("}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var spec model.AppSpec
		if json.Unmarshal(b, &spec) == nil {
			_ = Validate(&spec)
		}
	})
}

func TestAdmit(t *testing.T) {
	s := state.New()
	put := func(c command.Command) {
		tx := s.Begin()
		if res, err := command.ApplyCommand(tx, tx.Index()+1, c); err != nil || res.Err != nil {
			t.Fatal(err, res.Err)
		}
		tx.Commit(tx.Index() + 1)
	}
	put(&command.PutEnvironment{Environment: model.Environment{Name: "test", Selector: map[string]string{"env": "test"}}})
	for _, n := range []string{"ms1", "ms2"} {
		put(&command.RegisterNode{Node: model.Node{ID: n, Name: n, Role: model.RoleAgent, Status: model.NodeReady, Drain: true,
			Capacity: model.Resources{CPUs: 2, Memory: 1000}, Attributes: map[string]string{"env": "test"}}})
	}
	for _, c := range []struct {
		name string
		spec model.AppSpec
		code model.Code
		says string
	}{
		{"fits", model.AppSpec{ID: "/test/a", Instances: 9, Resources: model.Resources{CPUs: 2}}, "", ""},
		{"environment", model.AppSpec{ID: "/prod/a", Instances: 1}, model.CodeNotFound, "no environment"},
		{"too big", model.AppSpec{ID: "/test/a", Instances: 1, Resources: model.Resources{CPUs: 3}}, model.CodeUnplaceable, "2 free on ms"},
		{"unique", model.AppSpec{ID: "/test/a", Instances: 3, Constraints: []model.Constraint{{Attribute: "hostname", Operator: "UNIQUE"}}}, model.CodeUnplaceable, "UNIQUE"},
		{"unique fits", model.AppSpec{ID: "/test/a", Instances: 2, Resources: model.Resources{CPUs: 2}, Constraints: []model.Constraint{{Attribute: "hostname", Operator: "UNIQUE"}}}, "", ""},
		{"nowhere", model.AppSpec{ID: "/test/a", Instances: 1, Constraints: []model.Constraint{{Attribute: "hostname", Operator: "IS", Value: "ms9"}}}, model.CodeUnplaceable, "ms9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Image = "a"
			err := Admit(s.Snapshot(), &c.spec)
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || model.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v", err)
			}
		})
	}
}
