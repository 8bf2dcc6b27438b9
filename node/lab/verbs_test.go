package lab

import (
	"bytes"
	"flag"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"appliance/vagrant"
)

// runVerb does what a command line would.
func runVerb(t *testing.T, o Options, line string) (any, string, error) {
	t.Helper()
	words := strings.Fields(line)
	for _, v := range Verbs("") {
		if v.Name != words[0] {
			continue
		}
		f := flag.NewFlagSet(v.Name, flag.ContinueOnError)
		v.Flags(f)
		if err := f.Parse(append([]string{"-dir", o.Dir}, words[1:]...)); err != nil {
			t.Fatal(err)
		}
		if n := f.NArg(); n < v.Min || v.Max >= 0 && n > v.Max {
			t.Fatalf("%s takes %d to %d arguments", line, v.Min, v.Max)
		}
		var out bytes.Buffer
		r, err := v.Run(t.Context(), Streams{Out: &out, Err: &out}, f.Args())
		return r, out.String(), err
	}
	t.Fatalf("no verb %s", words[0])
	return nil, "", nil
}

func TestVerbs(t *testing.T) {
	c, o := testCluster(t)
	if _, _, err := runVerb(t, o, "status"); err != ErrDown {
		t.Errorf("status without a lab: %v", err)
	}
	c.Machines = c.Machines[2:4]
	l := startLab(t, c, o)
	for _, tt := range []struct{ line, result, out, err string }{
		{"start mm3 ms1", "mm3 ms1: started", "", ""},
		{"exec mm3 echo hello", "", "hello\n", ""},
		{"exec mm3 false", "", "", "exit code 1"},
		{"pause ms1", "ms1: paused", "", ""},
		{"exec ms1 true", "", "", "'appliance lab resume ms1'"},
		{"status", "paused", "", ""},
		{"resume ms1", "ms1: resumed", "", ""},
		{"partition mm3 / ms1", "heal", "", ""},
		{"partition -one-way mm3", "", "", "two groups"},
		{"status", "cut: ms1 -> mm3", "", ""},
		{"loss 25% ms1", "ms1: 25 % loss", "", ""},
		{"loss lots ms1", "", "", "not a number"},
		{"link ms1 down", "ms1: link down", "", ""},
		{"link ms1 sideways", "", "", "say up or down"},
		{"status", "down, 25 % loss", "", ""},
		{"heal", "whole", "", ""},
		{"kill -stay ms1", "ms1: service killed", "", ""},
		{"logs -lines 1 ms1", "", "fake service runs\n", ""},
		{"logs mm1", "", "", "the machines are mm3, ms1"},
		{"stop mm3", "mm3: service stopped", "", ""},
		{"poweroff ms1", "ms1: powered off", "", ""},
		{"up", "", "", "up already"},
	} {
		if strings.HasPrefix(tt.line, "kill") {
			eventually(t, "log", func() error {
				if _, out, err := runVerb(t, o, "logs ms1"); out == "" {
					return fmt.Errorf("empty: %v", err)
				}
				return nil
			})
		}
		r, out, err := runVerb(t, o, tt.line)
		var text string
		if r != nil {
			text = r.(interface{ Text() string }).Text()
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) ||
			!strings.Contains(text, tt.result) || !strings.Contains(out, tt.out) {
			t.Errorf("%s: result %q, output %q, error %v", tt.line, text, out, err)
		}
	}
	if err := l.Put(t.Context(), "mm3", "/etc/passwd", "/srv/new/file", "750"); err != nil {
		t.Error(err)
	}
	if out, err := l.Output(t.Context(), "mm3", "stat", "-c", "%a", "/srv/new/file"); string(out) != "750\n" {
		t.Errorf("%s %v", out, err)
	}
	if err := l.Start(t.Context(), "mm3"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "dial the machine's loopback", func() error {
		conn, err := l.Dial(t.Context(), "mm3", "tcp", "127.0.0.1:7000")
		if err == nil {
			conn.SetDeadline(time.Now().Add(time.Second))
			conn.Close()
		}
		return err
	})
}

func TestParseGroups(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       [][]string
	}{
		{"one machine", "mm1", [][]string{{"mm1"}}},
		{"two groups", "mm1 / mm2 mm3", [][]string{{"mm1"}, {"mm2", "mm3"}}},
		{"commas", "mm1,ms1/mm2", [][]string{{"mm1", "ms1"}, {"mm2"}}},
		{"empty groups", "/ mm1 / /", [][]string{{"mm1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseGroups(strings.Fields(tt.line)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestCutsBetween(t *testing.T) {
	c, err := vagrant.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		groups [][]string
		cuts   int
		bad    bool
	}{
		{"one against all", [][]string{{"mm1"}}, 2 * 6, false},
		{"two groups", [][]string{{"mm1", "mm2"}, {"ms1"}}, 2 * 2, false},
		{"three groups", [][]string{{"mm1"}, {"mm2"}, {"mm3"}}, 2 * 3, false},
		{"the host", [][]string{{"mm1"}, {"host"}}, 2, false},
		{"unknown", [][]string{{"mm1"}, {"mm7"}}, 0, true},
		{"twice", [][]string{{"mm1"}, {"mm1"}}, 0, true},
		{"none", nil, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cuts, err := cutsBetween(c, tt.groups)
			if len(cuts) != tt.cuts || (err != nil) != tt.bad {
				t.Errorf("%v %v", cuts, err)
			}
		})
	}
}

func TestParseHierarchy(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       hierarchy
		ok         bool
	}{
		{"v2", "35 34 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate", hierarchy{point: "/sys/fs/cgroup", v2: true}, true},
		{"v1 pair", "36 34 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct", hierarchy{point: "/sys/fs/cgroup/cpu,cpuacct", options: "cpu,cpuacct"}, true},
		{"v1 named", "36 34 0:31 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd", hierarchy{point: "/sys/fs/cgroup/systemd", options: "name=systemd"}, true},
		{"elsewhere", "36 34 0:31 / /mnt/cg rw - cgroup2 cgroup2 rw", hierarchy{}, false},
		{"other kind", "36 34 0:31 / /sys/fs/cgroup rw - tmpfs tmpfs rw", hierarchy{}, false},
		{"broken", "36", hierarchy{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := parseHierarchy(tt.line); got != tt.want || ok != tt.ok {
				t.Errorf("%+v %v", got, ok)
			}
		})
	}
}
