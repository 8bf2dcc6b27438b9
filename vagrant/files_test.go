package vagrant

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"appliance/node/needs"
)

// recorded is what testdata/record.rb prints of one machine.
type recorded struct {
	Name   string
	Config struct {
		VM struct {
			Hostname string
			Network  []call `json:"network!"`
			Provider struct {
				Memory, CPUs int
				Name         string
			} `json:"_provider"`
			Provision []call `json:"provision!"`
		} `json:"_vm"`
	}
}

type call struct {
	Args    []string
	Options struct {
		IP, Netmask, Type, Path string
		Env                     map[string]string
	}
}

func TestVagrantfile(t *testing.T) {
	ruby := needs.Tool(t, "ruby", "ruby")
	if out, err := exec.Command(ruby, "-c", "Vagrantfile").CombinedOutput(); err != nil {
		t.Fatalf("syntax: %s", out)
	}
	out, err := exec.Command(ruby, "testdata/record.rb", "Vagrantfile").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got struct {
		Version string
		Config  struct {
			VM struct{ Machines []recorded } `json:"_vm"`
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != "2" || len(got.Config.VM.Machines) != len(c.Machines) {
		t.Fatalf("version %s, %d machines", got.Version, len(got.Config.VM.Machines))
	}
	for i, m := range c.Machines {
		checkMachine(t, c, m, got.Config.VM.Machines[i])
	}
}

func checkMachine(t *testing.T, c Cluster, m Machine, r recorded) {
	t.Helper()
	vm := r.Config.VM
	if r.Name != m.Name || vm.Hostname != m.Name || vm.Provider.Memory != m.Memory || vm.Provider.CPUs != m.CPUs {
		t.Errorf("%s: got %+v", m.Name, r)
	}
	if len(vm.Network) != 1 || vm.Network[0].Options.IP != m.Address.String() || vm.Network[0].Options.Netmask != "255.255.255.0" {
		t.Errorf("%s: network %+v", m.Name, vm.Network)
	}
	if len(vm.Provision) != 1 || !strings.HasSuffix(vm.Provision[0].Options.Path, "/provision.sh") {
		t.Fatalf("%s: provisioning %+v", m.Name, vm.Provision)
	}
	var attributes string
	for k, v := range m.Attributes {
		attributes = k + "=" + v
	}
	env := vm.Provision[0].Options.Env
	want := map[string]string{"NODE_NAME": m.Name, "NODE_ROLE": m.Role, "NODE_ADDRESS": m.Address.String(),
		"NODE_ATTRIBUTES": attributes, "FIRST_MASTER": c.Masters()[0].Address.String(), "CLUSTER": c.Name, "VIP": c.VIP.String()}
	for k, v := range want {
		if env[k] != v {
			t.Errorf("%s: %s is %q, want %q", m.Name, k, env[k], v)
		}
	}
	for _, line := range []string{fmt.Sprintf("%s %s", m.Address, m.Name), c.VIP.String() + " app-test app-production"} {
		if !strings.Contains(env["HOSTS"]+"\n", line+"\n") {
			t.Errorf("%s: HOSTS misses %q", m.Name, line)
		}
	}
}

func TestProvisioningIsShell(t *testing.T) {
	if out, err := exec.Command("sh", "-n", "provision.sh").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
