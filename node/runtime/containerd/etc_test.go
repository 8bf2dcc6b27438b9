package containerd

import (
	"testing"

	"appliance/node/runtime"
)

func TestResolvConf(t *testing.T) {
	const node = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch corp\noptions edns0\n"
	for _, tc := range []struct {
		name, gateway string
		spec          runtime.ContainerSpec
		want          string
	}{
		{"host network takes the node's", "", runtime.ContainerSpec{}, node},
		{"bridge asks the node instead of loopback", "172.29.0.1", runtime.ContainerSpec{}, "nameserver 172.29.0.1\nnameserver 10.0.0.2\nsearch corp\noptions edns0\n"},
		{"own search", "", runtime.ContainerSpec{Search: []string{"a", "b"}}, "nameserver 127.0.0.53\nnameserver 10.0.0.2\noptions edns0\nsearch a b\n"},
		{"own servers", "172.29.0.1", runtime.ContainerSpec{Nameservers: []string{"1.1.1.1"}, DNSOptions: []string{"ndots:1"}}, "nameserver 1.1.1.1\noptions ndots:1\n"},
	} {
		if got := resolvConf(tc.spec, node, tc.gateway); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	got := hostsFile("", "web", "172.29.0.2", []runtime.HostEntry{{IP: "10.0.0.9", Names: []string{"db", "db.test"}}})
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n172.29.0.2\tweb\n10.0.0.9\tdb db.test\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
