package consul

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are the query parameters that every read takes.
type options struct {
	index  uint64 // 0: do not block
	wait   time.Duration
	mode   string // leader (default), stale or consistent
	pretty bool
	key    string // what the answer depends on: path and the other parameters
	values url.Values
}

// transient parameters say how to read, not what.
var transient = []string{"index", "wait", "stale", "consistent", "leader", "cached", "max_stale", "pretty", "token", "dc", "datacenter", "near", "ns", "partition"}

func readOptions(r *http.Request) (options, error) {
	q := r.URL.Query()
	o := options{wait: defaultWait, mode: "leader", pretty: q.Has("pretty"), values: q}
	if v := q.Get("index"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return o, fail(http.StatusBadRequest, "Invalid index")
		}
		o.index = n
	}
	if v := q.Get("wait"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return o, fail(http.StatusBadRequest, "Invalid wait time")
		}
		if d > 0 {
			o.wait = min(d, maxWait)
		}
	}
	switch {
	case q.Has("stale") && q.Has("consistent"):
		return o, fail(http.StatusBadRequest, "Cannot specify ?stale with ?consistent, conflicting semantics.")
	case q.Has("stale"), q.Has("max_stale"):
		o.mode = "stale"
	case q.Has("consistent"):
		o.mode = "consistent"
	}
	o.key = memoKey(r.URL.Path, q)
	return o, nil
}

func memoKey(path string, q url.Values) string {
	names := make([]string, 0, len(q))
	for name := range q {
		if !slices.Contains(transient, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(path)
	for _, name := range names {
		for _, v := range q[name] {
			b.WriteString("\x00" + name + "\x01" + v)
		}
	}
	return b.String()
}

// flag reads a boolean parameter that may stand alone: "?passing" is true,
// "?passing=false" is not.
func flag(q url.Values, name string) (bool, error) {
	if !q.Has(name) {
		return false, nil
	}
	v := q.Get(name)
	if v == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fail(http.StatusBadRequest, "Invalid value for ?"+name)
	}
	return b, nil
}
