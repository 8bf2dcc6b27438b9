package registry

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"appliance/registry/ref"
)

// BenchmarkPush uploads as docker does: POST, one streamed PATCH, PUT.
func BenchmarkPush(b *testing.B) {
	for name, size := range map[string]int{"16KiB": 16 << 10, "64MiB": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			f := newFixture(b, nil)
			body := randomBytes(size)
			b.SetBytes(int64(size))
			for n := 0; b.Loop(); n++ {
				copy(body, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
				at := f.want(f.do("POST", "/v2/a/blobs/uploads/", nil), 202, "").header.Get("Location")
				f.want(f.do("PATCH", at, body), 202, "")
				d := ref.FromBytes(body)
				f.want(f.do("PUT", at+"?digest="+string(d), nil), 201, "")
				if size > 1<<20 {
					f.store.Delete(d)
				}
			}
		})
	}
}

func BenchmarkPull(b *testing.B) {
	for name, size := range map[string]int{"16KiB": 16 << 10, "64MiB": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			f := newFixture(b, nil)
			d := f.push("a", []byte(strings.Repeat("x", size)))
			b.SetBytes(int64(size))
			for b.Loop() {
				resp, err := http.Get(f.url + "/v2/a/blobs/" + string(d))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
