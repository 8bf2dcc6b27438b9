package vagrant

import (
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Machines) != 7 || len(c.Masters()) != 3 || c.VIP.String() != "192.168.56.100" {
		t.Fatalf("%+v", c)
	}
	want := map[string]string{"mm1": "192.168.56.11", "mm3": "192.168.56.13", "ms1": "192.168.56.21", "ms4": "192.168.56.24"}
	for name, addr := range want {
		if m, ok := c.Machine(name); !ok || m.Address.String() != addr {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for name, env := range map[string]string{"ms1": "test", "ms2": "test", "ms3": "production", "ms4": "production", "mm1": ""} {
		if m, _ := c.Machine(name); m.Attributes["env"] != env {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "name: x\nnetwork: 10.0.0.0/24\nhost: 10.0.0.1\nvip: 10.0.0.9\n"
	const one = "{name: a, role: master, address: 10.0.0.2}"
	for _, tt := range []struct{ name, text, want string }{
		{"unknown field", head + "colour: red\n", "colour"},
		{"no machines", head, "0 machines"},
		{"no master", head + "machines: [{name: a, role: agent, address: 10.0.0.2}]", "role master"},
		{"role", head + "machines: [{name: a, role: boss, address: 10.0.0.2}]", "boss"},
		{"name twice", head + "machines: [" + one + ", {name: a, role: agent, address: 10.0.0.3}]", "unique"},
		{"name of the host", head + "machines: [{name: host, role: master, address: 10.0.0.2}]", "unique"},
		{"address twice", head + "machines: [" + one + ", {name: b, role: agent, address: 10.0.0.2}]", "belongs to a"},
		{"address of the vip", head + "machines: [{name: a, role: master, address: 10.0.0.9}]", "belongs to vip"},
		{"address elsewhere", head + "machines: [{name: a, role: master, address: 10.0.1.2}]", "not a host address"},
		{"broadcast", head + "machines: [{name: a, role: master, address: 10.0.0.255}]", "not a host address"},
		{"long name", head + "machines: [{name: abcdefghijklm, role: master, address: 10.0.0.2}]", "12"},
		{"network with host bits", "name: x\nnetwork: 10.0.0.5/24\n", "IPv4 network"},
		{"two documents", head + "machines: [" + one + "]\n---\nname: y\n", "one document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(clusterYAML)
	f.Add([]byte("name: x\nnetwork: 10.0.0.0/24\nhost: 10.0.0.1\nmachines: [{name: a, role: master, address: 10.0.0.2}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err == nil && (len(c.Machines) == 0 || !c.Network.Contains(c.Machines[0].Address)) {
			t.Fatalf("accepted %+v", c)
		}
	})
}
