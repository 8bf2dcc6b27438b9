package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/model"
)

// apiClient speaks to the API socket of one machine.
type apiClient struct {
	machine string
	http    *http.Client
}

// maxAnswer bounds what is read of one answer.
const maxAnswer = 16 << 20

func (s *Story) api(machine string) *apiClient {
	if c := s.apis[machine]; c != nil {
		return c
	}
	sock := s.socket(machine)
	c := &apiClient{machine, &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, // the bench writes from that many
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", sock)
		},
	}}}
	s.apis[machine] = c
	return c
}

func answers(sock string) bool {
	conn, err := net.DialTimeout("unix", sock, time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// do makes one request and returns the body of a good answer.
func (c *apiClient) do(ctx context.Context, method, path string, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://appliance"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s %s: %s: %.300s", c.machine, method, path, resp.Status, text)
	}
	return text, err
}

// get asks what the machine itself knows.
func get[T any](ctx context.Context, c *apiClient, path string) (T, error) {
	var v T
	sign := "?"
	if strings.Contains(path, sign) {
		sign = "&"
	}
	text, err := c.do(ctx, http.MethodGet, api.Prefix+path+sign+"stale", "")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, err
}

// put writes a key and returns when the write is acknowledged.
func (c *apiClient) put(ctx context.Context, key, value string) error {
	text, err := c.do(ctx, http.MethodPut, "/v1/kv/"+key, value)
	if err == nil && strings.TrimSpace(string(text)) != "true" {
		err = fmt.Errorf("%s: the write of %s was answered by %.100s", c.machine, key, text)
	}
	return err
}

func (s *Story) status(ctx context.Context, machine string) (api.Status, error) {
	return get[api.Status](ctx, s.api(machine), "/status")
}

// tasks are the live ones of the app in the environment.
func (s *Story) tasks(ctx context.Context, machine, env string) ([]api.TaskView, error) {
	list, err := get[[]api.TaskView](ctx, s.api(machine), "/tasks?"+url.Values{"app": {model.AppID(env, appName)}}.Encode())
	return slices.DeleteFunc(list, func(t api.TaskView) bool { return t.Stop }), err
}

// last is the newest deployment of the app in the environment.
func (s *Story) last(ctx context.Context, env string) (*model.Deployment, error) {
	list, err := get[[]*model.Deployment](ctx, s.api(s.master()), "/deployments?"+url.Values{"app": {model.AppID(env, appName)}}.Encode())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no deployment of %s in %s is known", appName, env)
	}
	return slices.MaxFunc(list, func(a, b *model.Deployment) int { return a.StartedAt.Compare(b.StartedAt) }), nil
}

// master is a master whose API answers now.
func (s *Story) master(except ...string) string {
	for _, m := range s.cluster.Masters() {
		if !slices.Contains(except, m.Name) && answers(s.socket(m.Name)) {
			return m.Name
		}
	}
	return s.cluster.Masters()[0].Name
}

// await looks until check is content. The error is the last complaint.
func await(ctx context.Context, limit time.Duration, check func(ctx context.Context) error) error {
	return awaitEvery(ctx, limit, lookEvery, check)
}

func awaitEvery(ctx context.Context, limit, pause time.Duration, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s still: %w", limit, last)
		case <-time.After(pause):
		}
	}
}
