package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/vagrant"
)

// TestProvisioning runs vagrant/provision.sh in machines, with the stand-in
// for the binary and for systemctl: all else is as in a virtual machine.
func TestProvisioning(t *testing.T) {
	c, o := testCluster(t)
	mm1, ms3 := c.Machines[0], c.Machines[5]
	c.Machines = []vagrant.Machine{mm1, ms3}
	l := startLab(t, c, o)
	const shared = "/srv/shared"
	for _, m := range c.Machines {
		must(t, l.Put(t.Context(), m.Name, "../../vagrant/provision.sh", shared+"/provision.sh", "755"))
		must(t, l.Put(t.Context(), m.Name, os.Args[0], shared+"/bin/appliance", "755"))
		stub := filepath.Join(t.TempDir(), "systemctl")
		must(t, os.WriteFile(stub, []byte("#!/bin/sh\necho \"$@\" >>/run/systemctl\n"), 0o755)) // says: active
		must(t, l.Put(t.Context(), m.Name, stub, "/usr/local/bin/systemctl", "755"))
	}
	provision := func(m vagrant.Machine, env ...string) (int, string) {
		t.Helper()
		var out bytes.Buffer
		code, err := l.Exec(t.Context(), m.Name, Command{Args: []string{"sh", shared + "/provision.sh"}, Stdout: &out, Stderr: &out,
			Env: append([]string{"SHARED=" + shared, "WAIT=0", "NODE_NAME=" + m.Name, "NODE_ROLE=" + m.Role, "NODE_ADDRESS=" + m.Address.String(),
				"NODE_ATTRIBUTES=env=production disk=ssd", "FIRST_MASTER=" + mm1.Address.String(), "HOSTS=10.9.8.7 somebody"}, env...)})
		must(t, err)
		return code, out.String()
	}
	read := func(machine, path string) string {
		out, _ := l.Output(t.Context(), machine, "cat", path)
		return string(out)
	}

	if code, out := provision(ms3); code == 0 || !strings.Contains(out, "provision the first master") {
		t.Errorf("without a token: %d\n%s", code, out)
	}
	if code, out := provision(ms3, "NODE_ROLE=boss"); code == 0 || !strings.Contains(out, "neither master nor agent") {
		t.Errorf("unknown role: %d\n%s", code, out)
	}
	code, out := provision(mm1, "CLUSTER=demo", "VIP=10.0.0.9")
	if code != 0 || !strings.Contains(out, "made the cluster") || !strings.Contains(out, "mm1 is ready") {
		t.Fatalf("first master: %d\n%s", code, out)
	}
	if args := read("mm1", dataDir+"/args"); args != "init --name mm1 --advertise "+mm1.Address.String()+" --cluster demo --vip 10.0.0.9 --json" {
		t.Errorf("init got %q", args)
	}
	token := filepath.Join(t.TempDir(), "agent")
	must(t, os.WriteFile(token, []byte(read("mm1", shared+"/vagrant/.join/agent")), 0o600))
	must(t, l.Put(t.Context(), "ms3", token, shared+"/vagrant/.join/agent", "600"))
	must(t, l.Start(t.Context(), "mm1")) // what systemd would do
	eventually(t, "mm1 serves", func() error { return reach(t, l, "ms3", "mm1") })
	if code, out := provision(ms3); code != 0 || !strings.Contains(out, "joined as agent") {
		t.Fatalf("agent: %d\n%s", code, out)
	}
	want := "join --name ms3 --advertise " + ms3.Address.String() + " --role agent --token APPL1-a --attribute env=production --attribute disk=ssd " + mm1.Address.String() + ":7600"
	if args := read("ms3", dataDir+"/args"); args != want {
		t.Errorf("join got  %q\nwant %q", args, want)
	}

	for _, m := range c.Machines { // again: nothing to do
		hosts := read(m.Name, "/etc/hosts")
		if !strings.Contains(hosts, "10.9.8.7 somebody") || !strings.Contains(hosts, "localhost") {
			t.Errorf("%s: hosts\n%s", m.Name, hosts)
		}
		must(t, os.Remove(filepath.Join(l.DataDir(m.Name), "args")))
		if code, out := provision(m); code != 0 || out != "provision: "+m.Name+" is ready\n" {
			t.Errorf("again: %d\n%s", code, out)
		}
		if got := read(m.Name, dataDir+"/args"); got != "" {
			t.Errorf("%s ran %q again", m.Name, got)
		}
		if got := read(m.Name, "/run/systemctl"); got != "start appliance\n" {
			t.Errorf("%s: systemctl got %q", m.Name, got)
		}
		if again := read(m.Name, "/etc/hosts"); again != hosts {
			t.Errorf("%s: hosts changed to\n%s", m.Name, again)
		}
	}

	newer := filepath.Join(t.TempDir(), "appliance")
	must(t, os.WriteFile(newer, []byte("#!/bin/sh\n"), 0o755))
	must(t, l.Put(t.Context(), "ms3", newer, shared+"/bin/appliance", "755"))
	if code, out := provision(ms3); code != 0 || !strings.Contains(out, "restarted with the new binary") {
		t.Errorf("new binary: %d\n%s", code, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
