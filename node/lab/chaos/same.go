package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"appliance/node/api"
	"appliance/node/model"
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
	if ctx.Err() == nil {
		w.wrong.violate(sameRule, "the nodes were never seen at one index: %v", last)
	}
}

var lists = []string{"/apps?stale", "/tasks?stale", "/deployments?stale", "/releases?stale", "/services?stale", "/images?stale",
	"/environments?stale", "/tokens?stale", "/audit?stale&limit=1000"}

// hashes has the cluster compare the states of all nodes at one index.
func (w *watch) hashes(ctx context.Context) {
	w.wrong.check(hashRule, 1)
	masters := w.cluster.Masters() // agents may not ask for it
	tries := 0
	err := again(ctx, settleTime, func(ctx context.Context) error {
		tries++
		asked := masters[tries%len(masters)].Name
		i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == asked })
		text, _, err := w.nodes[i].do(ctx, http.MethodPost, api.Prefix+"/upgrade/check", "{}")
		var got api.StateCheck
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		switch {
		case err != nil:
			return err
		case len(got.Diverged) > 0:
			w.wrong.violate(hashRule, "at index %d: %+v", got.Index, got.Diverged)
		case got.Nodes != len(w.nodes):
			return fmt.Errorf("%d of %d nodes told the hash of their state at index %d", got.Nodes, len(w.nodes), got.Index)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		w.wrong.violate(hashRule, "the states could not be compared: %v", err)
	}
}

// alarmTail is how many events are read each time: far more than come between two looks.
const alarmTail = 1000

// alarms looks whether the cluster's own comparisons of states, which it makes
// each minute, have found a difference: it tells so in its events.
func (w *watch) alarms(ctx context.Context) {
	for _, n := range w.nodes {
		ctx, cancel := context.WithTimeout(ctx, 10*lookEach)
		list, err := get[[]model.Event](ctx, n, fmt.Sprintf("%s/events?stale&limit=%d", api.Prefix, alarmTail))
		cancel()
		if err == nil {
			w.alarm(list)
			return
		}
	}
}

// alarm counts each event once.
func (w *watch) alarm(list []model.Event) {
	w.wrong.check(alarmRule, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range list {
		if e.Kind != "node" || !strings.Contains(e.Text, "has another state than") || e.Seq <= w.told {
			continue
		}
		w.told = e.Seq
		w.wrong.violate(alarmRule, "an event says: %s %s", e.Subject, e.Text)
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
