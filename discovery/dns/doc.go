// Package dns answers DNS from the catalog, as Consul's agents do: services
// (A, AAAA, SRV, RFC 2782, tags), nodes, addresses, reverse names, the host
// names of routes, and recursion for the rest.
//
// Where users of Consul complain the answer differs on purpose: TC is set
// whenever something was left out, UDP answers are not cut to three, and TTLs
// are short but not zero.
package dns
