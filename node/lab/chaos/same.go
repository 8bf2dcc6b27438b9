package chaos

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"appliance/node/api"
)

// sameTime bounds the wait for a moment in which all nodes have the same
// index: leases and sessions go on being renewed.
const sameTime = 30 * time.Second

// same compares the state of all nodes at the same index: what they answer
// to every list, and all keys.
func (w *watch) same(ctx context.Context) {
	var last error
	for end := time.Now().Add(sameTime); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
		differ, ok, err := w.compare(ctx)
		if !ok {
			last = err
			continue
		}
		w.wrong.check(sameRule, 1)
		if differ != "" {
			w.wrong.violate(sameRule, "%s", differ)
		}
		return
	}
	w.wrong.note("the nodes were never seen at one index: %v", last)
}

var lists = []string{"/apps", "/tasks", "/deployments", "/releases", "/services", "/images", "/environments", "/tokens", "/audit?limit=1000"}

// diverged looks whether the cluster's own comparison of states at equal
// index has ever found a difference: it tells so in its events.
func (w *watch) diverged(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	text, _, err := w.nodes[0].do(ctx, "GET", api.Prefix+"/events", "")
	if err != nil {
		w.wrong.note("the events cannot be read: %v", err)
		return
	}
	w.wrong.check(sameRule, 1)
	if i := strings.Index(string(text), "has another state than"); i >= 0 {
		w.wrong.violate(sameRule, "an event says: %.200s", text[max(0, i-100):])
	}
}

// compare returns ok if all nodes had the same index before and after their
// answers.
func (w *watch) compare(ctx context.Context) (differ string, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sameTime)
	defer cancel()
	index, err := w.index(ctx)
	if err != nil {
		return "", false, err
	}
	first := map[string]string{}
	for _, n := range w.nodes {
		for _, path := range append([]string{"/v1/kv/?recurse&stale"}, lists...) {
			if path[:3] != "/v1" {
				path = api.Prefix + path
			}
			text, _, err := n.do(ctx, "GET", path, "")
			if err != nil {
				return "", false, err
			}
			sum := fmt.Sprintf("%x", sha256.Sum256(text))
			if first[path] == "" {
				first[path] = sum
			} else if first[path] != sum && differ == "" {
				differ = fmt.Sprintf("%s and %s answer %s differently at index %d", w.nodes[0].name, n.name, path, index)
			}
		}
	}
	after, err := w.index(ctx)
	if err == nil && after != index {
		err = fmt.Errorf("the index moved from %d to %d", index, after)
	}
	return differ, err == nil, err
}

// index is that of all nodes, or an error.
func (w *watch) index(ctx context.Context) (uint64, error) {
	var index uint64
	for _, n := range w.nodes {
		st, err := n.status(ctx)
		if err != nil {
			return 0, err
		}
		if index != 0 && st.Index != index {
			return 0, fmt.Errorf("%s is at index %d, others at %d", n.name, st.Index, index)
		}
		index = st.Index
	}
	return index, nil
}
