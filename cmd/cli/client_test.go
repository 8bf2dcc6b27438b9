package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appliance/node/api"
)

// An answer that nobody confirms is told of once, beside the answer.
func TestStaleAnswersAreTold(t *testing.T) {
	for _, c := range []struct{ name, header, want string }{
		{"current", "", ""},
		{"an hour old", time.Now().Add(-time.Hour).Format(time.RFC3339), "knew 1h"},
		{"unknown", api.StaleUnknown, "knew before it started"},
		{"of a newer version", "since Tuesday", "knew before it started"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set(api.StaleHeader, c.header)
				}
				w.Write([]byte("[]"))
			}))
			t.Cleanup(srv.Close)
			var errOut bytes.Buffer
			a := &app{address: srv.URL, errOut: &errOut}
			client, err := a.client()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				var list []api.AppView
				if err := client.Get(t.Context(), "/apps", &list); err != nil {
					t.Fatal(err)
				}
			}
			got := errOut.String()
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Count(got, "\n") > 1 {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
