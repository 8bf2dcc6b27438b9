package lb

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	var routes []Route
	for _, s := range []string{"app-test", "app-test/api", "app-test/api/v2", "*.example.com", "*.eu.example.com", "www.example.com/only", "*/health", "::1"} {
		host, path := s, ""
		if i := strings.IndexByte(s, '/'); i >= 0 {
			host, path = s[:i], s[i:]
		}
		routes = append(routes, Route{Host: host, PathPrefix: path, Service: s})
	}
	tab, err := NewTable(routes, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, path, want string }{
		{"app-test", "/", "app-test"},
		{"APP-test:80", "/x", "app-test"},
		{"app-test.", "/apix", "app-test"},
		{"app-test", "/api", "app-test/api"},
		{"app-test", "/api/v2/x", "app-test/api/v2"},
		{"a.example.com", "/", "*.example.com"},
		{"a.eu.example.com", "/", "*.eu.example.com"},
		{"a.b.example.com", "/", "*.example.com"},
		{"example.com", "/", ""},
		{"www.example.com", "/only/this", "www.example.com/only"},
		{"www.example.com", "/other", "*.example.com"},
		{"nobody", "/health", "*/health"},
		{"nobody", "/", ""},
		{"[::1]:80", "/", "::1"},
		{"", "*", ""},
	} {
		r, ok := tab.Match(c.host, c.path)
		if r.Service != c.want || ok != (c.want != "") {
			t.Errorf("%s%s goes to %q, want %q", c.host, c.path, r.Service, c.want)
		}
	}
}

func TestBadTableIsRefused(t *testing.T) {
	ok := Backend{ID: "t1", Addr: "10.0.0.1:80"}
	for name, c := range map[string]struct {
		routes   []Route
		services []Service
		want     string
	}{
		"no host":        {routes: []Route{{Service: "s"}}, want: "no host"},
		"inner wildcard": {routes: []Route{{Host: "a.*.b", Service: "s"}}, want: "wildcard"},
		"no service":     {routes: []Route{{Host: "a"}}, want: "no service"},
		"relative path":  {routes: []Route{{Host: "a", PathPrefix: "x", Service: "s"}}, want: "must start"},
		"route twice":    {routes: []Route{{Host: "a", Service: "s"}, {Host: "A.", PathPrefix: "/", Service: "r"}}, want: "again to r"},
		"service twice":  {services: []Service{{Name: "s"}, {Name: "s"}}, want: "twice"},
		"name for addr":  {services: []Service{{Name: "s", Backends: []Backend{{ID: "t", Addr: "host:80"}}}}, want: "ip:port"},
		"no id":          {services: []Service{{Name: "s", Backends: []Backend{{Addr: "10.0.0.1:80"}}}}, want: "task id"},
		"weight":         {services: []Service{{Name: "s", Backends: []Backend{{ID: "t", Addr: "10.0.0.1:80", Weight: -1}}}}, want: "weight"},
		"backend twice":  {services: []Service{{Name: "s", Backends: []Backend{ok, ok}}}, want: "again"},
	} {
		if _, err := NewTable(c.routes, c.services); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestScheduleGivesEachItsShare(t *testing.T) {
	if got := schedule([]int{5, 5, 5}); !reflect.DeepEqual(got, []int{0, 1, 2}) {
		t.Errorf("equal weights give %v", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SliceOfN(rapid.IntRange(1, 50), 1, 6).Draw(t, "weights")
		n := make([]int, len(w))
		s := schedule(w)
		for _, i := range s {
			n[i]++
		}
		for i := range w {
			if n[i]*w[0] != n[0]*w[i] {
				t.Fatalf("weights %v give turns %v", w, n)
			}
		}
	})
}

func TestHistogramQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "d")).Truncate(time.Microsecond)
		top := bucketTop(bucketOf(d))
		if top < d || float64(top) > float64(d)*1.13+1000 {
			t.Fatalf("%v counts as %v", d, top)
		}
	})
	h := Histogram{Buckets: map[int]uint64{bucketOf(time.Millisecond): 99, bucketOf(time.Second): 1}}
	if p50, p99, all := h.Quantile(0.5), h.Quantile(0.99), h.Quantile(1); p50 > 2*time.Millisecond || p99 != p50 || all < time.Second {
		t.Errorf("p50 %v, p99 %v, max %v", p50, p99, all)
	}
}

func TestCountsMergeAcrossNodesByJSON(t *testing.T) {
	at := time.Unix(100, 0).UTC()
	a := Counts{Services: map[string]ServiceCounts{"s": {Releases: map[string]Count{
		"r1": {Requests: 2, Status: [6]uint64{2: 2}, First: at.Add(time.Second), Latency: Histogram{map[int]uint64{9: 2}}}}}}}
	b := Counts{Services: map[string]ServiceCounts{"s": {Releases: map[string]Count{
		"r1": {Requests: 3, Failed: 1, First: at, Latency: Histogram{map[int]uint64{9: 1, 20: 2}}}, "r2": {Requests: 1}}}}}
	var sum Counts
	for _, c := range []Counts{a, b} {
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back Counts
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		sum.Merge(back)
	}
	r1 := sum.Services["s"].Releases["r1"]
	if r1.Requests != 5 || r1.Failed != 1 || r1.First != at || r1.Latency.Buckets[9] != 3 || sum.Services["s"].Total().Requests != 6 {
		t.Errorf("sum %+v", sum)
	}
}
