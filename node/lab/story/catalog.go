package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// consulCount asks a machine's Consul API for the passing instances.
func consulCount(ctx context.Context, addr, service string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(addr, "8500")+"/v1/health/service/"+service+"?passing", nil)
	if err != nil {
		return 0, err
	}
	resp, err := plain.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var entries []struct {
		Service struct {
			Address string
			Port    int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&entries); err != nil || resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the Consul API at %s answered %s: %w", addr, resp.Status, err)
	}
	for _, e := range entries {
		if e.Service.Address == "" || e.Service.Port == 0 {
			return 0, fmt.Errorf("the Consul API at %s names an instance of %s without address or port", addr, service)
		}
	}
	return len(entries), nil
}

// srvCount asks a machine's DNS for the service's SRV records.
func srvCount(ctx context.Context, addr, service string) (int, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(addr, "8600"))
	}}
	_, list, err := r.LookupSRV(ctx, "", "", service+".service.consul.")
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		return 0, nil
	}
	return len(list), err
}
