package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"appliance/node/model"
)

// maxConsulBody is the largest value of the key-value store, with room.
const maxConsulBody = 1 << 20

// consul makes one call of the Consul dialect on the node's socket.
func (c *Client) consul(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxConsulBody))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, model.Errorf(model.CodeNotFound, "there is no such key")
	case bytes.HasPrefix(raw, []byte("No cluster leader")):
		return nil, model.Errorf(model.CodeUnavailable, "the cluster cannot take changes now").Because("it has no leader").
			Try("a majority of the masters must be alive and reach each other; see appliance nodes")
	case resp.StatusCode >= 300:
		return nil, model.Errorf(model.CodeInternal, "the node answered %s", resp.Status).Because("%s", bytes.TrimSpace(raw))
	}
	return raw, nil
}
