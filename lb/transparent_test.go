package lb

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// seen is what a backend got.
type seen struct {
	Method, URI, Host, Body string
	Header, Trailer         http.Header
}

// Whatever a client sends, the backend sees the same through the proxy as it
// does directly, except for the headers that the proxy owns.
func TestRequestsPassUnchanged(t *testing.T) {
	in := startIngress(t, Server{})
	b, _ := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(400)
			return
		}
		s := seen{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer}
		for _, k := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", requestID} {
			s.Header.Del(k)
		}
		out, _ := json.Marshal(s)
		w.Header().Set("X-Status", r.Header.Get("X-Want"))
		if r.Header.Get("X-Want") == "chunked" {
			w.Write(out[:1])
			http.NewResponseController(w).Flush()
			out = out[1:]
		}
		w.Write(out)
	})
	in.route(t, Options{}, b)
	text := rapid.StringMatching(`[!-~][ -~]{0,40}[!-~]`)
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"}).Draw(t, "method")
		path := rapid.StringMatching(`/([a-z0-9._~:@!$&'()*+,;=-]|%2[0-9F]|/){0,30}(\?[a-z0-9=&%;]{0,20})?`).Draw(t, "path")
		path = strings.ReplaceAll(path, "//", "/_/") // a leading // is an authority to the client library
		header := http.Header{"User-Agent": {"test"}, "Accept-Encoding": {"identity"}, "X-Want": {rapid.SampledFrom([]string{"", "chunked"}).Draw(t, "answer")}}
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			header.Add("X-"+rapid.StringMatching(`[A-Za-z0-9_-]{1,12}`).Draw(t, "name"), text.Draw(t, "value"))
		}
		header.Del("X-Real-Ip")
		body := strings.Repeat("b", rapid.SampledFrom([]int{0, 1, 100, 5000, replayLimit, replayLimit + 1}).Draw(t, "size"))
		chunked := rapid.Bool().Draw(t, "chunked")
		send := func(addr string) seen {
			var rd io.Reader
			if body != "" {
				rd = bytes.NewReader([]byte(body))
				if chunked {
					rd = io.MultiReader(rd)
				}
			}
			r, err := http.NewRequest(method, "http://"+addr+path, rd)
			if err != nil {
				t.Fatal("not a URL:", err)
			}
			r.Host, r.Header = "app", header.Clone()
			if chunked && body != "" {
				r.Trailer = http.Header{"X-Tail": {"end"}}
			}
			resp, err := in.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%d, %v: %s", resp.StatusCode, err, raw)
			}
			var s seen
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatalf("%v: %q %v", err, raw, resp.Header)
			}
			return s
		}
		if direct, through := send(b.Addr), send(in.addr); !reflect.DeepEqual(direct, through) {
			t.Fatalf("directly %+v\nthrough  %+v", direct, through)
		}
	})
}
