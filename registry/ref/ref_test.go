package ref

import (
	"strings"
	"testing"
)

var (
	d256 = "sha256:" + strings.Repeat("ab", 32)
	d512 = "sha512:" + strings.Repeat("01", 64)
)

func TestParseDigest(t *testing.T) {
	for name, tc := range map[string]struct {
		in string
		ok bool
	}{
		"sha256":            {d256, true},
		"sha512":            {d512, true},
		"upper-case hex":    {strings.ToUpper(d256), false},
		"short":             {d256[:len(d256)-1], false},
		"long":              {d256 + "0", false},
		"unknown algorithm": {"md5:" + strings.Repeat("a", 32), false},
		"path escape":       {"sha256:../../../../etc/passwd", false},
		"path of length 64": {"sha256:" + strings.Repeat("../", 21) + "a", false},
		"no colon":          {"sha256", false},
		"empty":             {"", false},
		"NUL":               {"sha256:" + strings.Repeat("\x00", 64), false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseDigest(tc.in); (err == nil) != tc.ok {
				t.Fatalf("ParseDigest(%q) = %v", tc.in, err)
			}
		})
	}
	if got := FromBytes(nil); got != "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Fatal(got)
	}
}

func TestCheckName(t *testing.T) {
	for in, ok := range map[string]bool{
		"a": true, "team/notejam": true, "a.b_c__d-e---f/0": true,
		"": false, "A": false, "a/": false, "/a": false, "a//b": false, "a..b": false, "a___b": false,
		"-a": false, "a-": false, "../a": false, "a/../b": false, "a._b": false,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
	} {
		if err := CheckName(in); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", in, err)
		}
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]Reference{
		"notejam":                         {Repository: "notejam"},
		"team/notejam:1.0":                {Repository: "team/notejam", Tag: "1.0"},
		"localhost:5000/notejam":          {Host: "localhost:5000", Repository: "notejam"},
		"127.0.0.1:5000/a/b:x@" + d256:    {Host: "127.0.0.1:5000", Repository: "a/b", Tag: "x", Digest: Digest(d256)},
		"registry.example/a@" + d512:      {Host: "registry.example", Repository: "a", Digest: Digest(d512)},
		"[::1]:5000/a":                    {Host: "[::1]:5000", Repository: "a"},
		"registry.cluster:5000/team/a:v1": {Host: "registry.cluster:5000", Repository: "team/a", Tag: "v1"},
	} {
		got, err := Parse(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("Parse(%q) = %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":", "a:", "a@", "a@sha256:1", "A/b:", "a b", "host:99999/a", "h.x/", "a:b:c", "localhost:0/a"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", in, got)
		}
	}
}

func TestParseRange(t *testing.T) {
	if a, b, err := ParseRange("0-41"); err != nil || a != 0 || b != 41 {
		t.Fatal(a, b, err)
	}
	for _, in := range []string{"", "-", "1-", "-1", "2-1", "+1-2", " 1-2", "0-99999999999999999999", "bytes 0-1/2"} {
		if _, _, err := ParseRange(in); err == nil {
			t.Errorf("ParseRange(%q) passed", in)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a", "localhost:5000/a/b:c@" + d256, "[::1]:5/a", "a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Fatalf("%q: %+v then %+v, %v", s, r, again, err)
		}
		if strings.Contains(r.Repository, "..") || strings.HasPrefix(r.Repository, "/") {
			t.Fatalf("%q: repository %q could leave a directory", s, r.Repository)
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add(d256)
	f.Add(d512)
	f.Add("sha256:../x")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(d.Hex(), "/.\x00") || d.Algorithm()+":"+d.Hex() != s {
			t.Fatalf("unsafe digest %q", s)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	f.Add("0-1")
	f.Add("5-4")
	f.Fuzz(func(t *testing.T, s string) {
		if a, b, err := ParseRange(s); err == nil && (a < 0 || b < a) {
			t.Fatalf("%q: %d-%d", s, a, b)
		}
	})
}
