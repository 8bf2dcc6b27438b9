package containerd

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"appliance/node/runtime"
)

// etcFiles makes the files that name the container and find others. Content
// of the node's own files is taken over where the container shares its
// network.
func etcFiles(spec runtime.ContainerSpec, ip, gateway string) map[string]string {
	host := spec.NetworkOrDefault() == runtime.NetworkHost
	hostname := spec.Hostname
	if hostname == "" && host {
		hostname, _ = os.Hostname()
	}
	if hostname == "" {
		hostname = spec.ID[:min(len(spec.ID), 63)]
	}
	var nodeHosts string
	if host {
		nodeHosts = readSmall("/etc/hosts")
	}
	return map[string]string{
		"hostname":    hostname + "\n",
		"hosts":       hostsFile(nodeHosts, hostname, ip, spec.ExtraHosts),
		"resolv.conf": resolvConf(spec, readSmall("/etc/resolv.conf"), gateway),
	}
}

func hostsFile(node, hostname, ip string, extra []runtime.HostEntry) string {
	var b strings.Builder
	if node != "" {
		b.WriteString(strings.TrimSuffix(node, "\n") + "\n")
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	if ip != "" {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
	}
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, strings.Join(h.Names, " "))
	}
	return b.String()
}

// resolvConf writes the spec's servers, or the node's. A loopback server of
// the node is not reachable from another network namespace: the bridge's
// gateway, which is the node, stands in.
func resolvConf(spec runtime.ContainerSpec, node, gateway string) string {
	var b strings.Builder
	if len(spec.Nameservers) == 0 {
		for _, line := range strings.Split(strings.TrimRight(node, "\n"), "\n") {
			f := strings.Fields(line)
			if gateway != "" && len(f) == 2 && f[0] == "nameserver" {
				if a, err := netip.ParseAddr(f[1]); err == nil && a.IsLoopback() {
					line = "nameserver " + gateway
				}
			}
			if len(spec.Search) > 0 && len(f) > 0 && (f[0] == "search" || f[0] == "domain") {
				continue
			}
			b.WriteString(line + "\n")
		}
	}
	for _, ns := range spec.Nameservers {
		b.WriteString("nameserver " + ns + "\n")
	}
	if len(spec.Search) > 0 {
		b.WriteString("search " + strings.Join(spec.Search, " ") + "\n")
	}
	if len(spec.DNSOptions) > 0 {
		b.WriteString("options " + strings.Join(spec.DNSOptions, " ") + "\n")
	}
	return b.String()
}

// maxEtc bounds what is read of a node's file.
const maxEtc = 64 << 10

func readSmall(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) > maxEtc {
		return ""
	}
	return string(b)
}
