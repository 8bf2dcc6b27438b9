package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestParseRef(t *testing.T) {
	d := "sha256:" + strings.Repeat("0a", 32)
	for _, tc := range []struct{ in, want string }{
		{"busybox", "docker.io/library/busybox:latest"},
		{"busybox:1.36", "docker.io/library/busybox:1.36"},
		{"index.docker.io/library/busybox", "docker.io/library/busybox:latest"},
		{"user/app", "docker.io/user/app:latest"},
		{"127.0.0.1:5000/notejam", "127.0.0.1:5000/notejam:latest"},
		{"127.0.0.1:5000/a/b_c__d-e.f:v1.0@" + d, "127.0.0.1:5000/a/b_c__d-e.f:v1.0@" + d},
		{"localhost/app@" + d, "localhost/app@" + d},
		{"[::1]:5000/app", "[::1]:5000/app:latest"},
		{"registry.example.com/app", "registry.example.com/app:latest"},
	} {
		got, err := ParseRef(tc.in)
		if err != nil || got.String() != tc.want {
			t.Errorf("%s: %s, %v; want %s", tc.in, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "UPPER", "a//b", "a:", "a@", "a@sha256:12", "http://a/b", "a b", "-a", "a/", "/a", "a:ta g", "../x",
		"a@" + strings.ToUpper(d), strings.Repeat("a", 256), "ho_st:80/x", "h:80"[:2] + "/x y"} {
		if got, err := ParseRef(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was read as %s", bad, got)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"busybox", "h.io:5/a/b:t@sha256:" + strings.Repeat("f", 64), "[::1]:1/x", "localhost/a", "A/b", "a__b/c..d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			return
		}
		again, err := ParseRef(r.String())
		if err != nil || again != r {
			t.Errorf("%q reads as %+v, its form %q as %+v, %v", s, r, r, again, err)
		}
	})
}

func TestValidate(t *testing.T) {
	good := ContainerSpec{ID: "test-notejam.1_a", Image: "app", Env: []string{"A="}, Network: NetworkBridge,
		Ports: []PortMapping{{HostPort: 80, ContainerPort: 8080}, {HostPort: 80, ContainerPort: 8080, Protocol: "udp"}}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ContainerSpec){
		"no id":           func(s *ContainerSpec) { s.ID = "" },
		"path as id":      func(s *ContainerSpec) { s.ID = "a/../b" },
		"long id":         func(s *ContainerSpec) { s.ID = strings.Repeat("a", 77) },
		"reserved label":  func(s *ContainerSpec) { s.Labels = map[string]string{LabelPrefix + "spec": ""} },
		"mount on root":   func(s *ContainerSpec) { s.Mounts = []Mount{{Source: "/x", Destination: "/a/.."}} },
		"negative limit":  func(s *ContainerSpec) { s.Resources.CPUs = -1 },
		"unknown network": func(s *ContainerSpec) { s.Network = "cni" },
		"undecided port":  func(s *ContainerSpec) { s.Ports[0].HostPort = 0 },
		"doubled port":    func(s *ContainerSpec) { s.Ports = append(s.Ports, s.Ports[0]) },
		"protocol":        func(s *ContainerSpec) { s.Ports[0].Protocol = "sctp" },
		"host address":    func(s *ContainerSpec) { s.Ports[0].HostIP = "::" },
		"nameserver":      func(s *ContainerSpec) { s.Nameservers = []string{"ns.example"} },
		"extra host":      func(s *ContainerSpec) { s.ExtraHosts = []HostEntry{{IP: "1.2.3.4"}} },
	} {
		bad := good
		bad.Ports = append([]PortMapping(nil), good.Ports...)
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestErrorSaysWhatWhyAndWhatToDo(t *testing.T) {
	err := Fail(ErrPortInUse, errors.New("nginx has it"), "start %s", "web")
	if got, want := err.Error(), "start web: port in use: nginx has it; stop what listens there or choose another host port"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if full := Fail(nil, fmt.Errorf("write: %w", syscall.ENOSPC), "pull"); !errors.Is(full, ErrNoSpace) || !errors.Is(full, syscall.ENOSPC) {
		t.Errorf("a full disk is not recognised: %v", full)
	}
}

func TestExitSignal(t *testing.T) {
	for _, tc := range []struct {
		exit Exit
		want Signal
	}{{Exit{Known: true, Code: 137}, 9}, {Exit{Known: true, Code: 143}, 15}, {Exit{Known: true, Code: 1}, 0}, {Exit{Code: 137}, 0}, {Exit{Known: true, Code: 255}, 0}} {
		if got := tc.exit.Signal(); got != tc.want {
			t.Errorf("%v: signal %d, want %d", tc.exit, got, tc.want)
		}
	}
}

type named struct {
	Runtime
	name string
}

func (n named) Name() string { return n.name }

func TestChoose(t *testing.T) {
	candidate := func(name string, auto bool, probe error) Candidate {
		return Candidate{Name: name, Automatic: auto,
			Probe: func(context.Context) (string, error) { return name + " answers", probe },
			Open:  func(context.Context) (Runtime, error) { return named{name: name}, nil }}
	}
	no := errors.New("is away")
	for _, tc := range []struct {
		name, flag string
		docker     error
		own        error
		want, why  string
	}{
		{"docker answers", "", nil, nil, "docker", "docker answers"},
		{"docker is away", "auto", no, nil, "own", "own answers"},
		{"the flag wins", "other", nil, nil, "other", "chosen by flag"},
		{"nothing works", "", no, no, "", ""},
		{"the flag is not replaced", "docker", no, nil, "", ""},
		{"unknown flag", "lxc", nil, nil, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rt, why, err := Choose(t.Context(), tc.flag, []Candidate{candidate("other", false, nil), candidate("docker", true, tc.docker), candidate("own", true, tc.own)})
			if tc.want == "" {
				if err == nil {
					t.Fatalf("chose %s", rt.Name())
				}
				return
			}
			if err != nil || rt.Name() != tc.want || why != tc.why {
				t.Errorf("%v, %q, %v", rt, why, err)
			}
		})
	}
}
