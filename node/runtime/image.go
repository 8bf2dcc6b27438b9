package runtime

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Image is one image that the engine holds.
type Image struct {
	Ref     string // canonical name; several Images may share a digest
	Digest  string // of the manifest (Docker: of the config, when never pulled)
	Size    int64  // bytes on disk, as the engine counts
	Created time.Time
	// ExposedPorts are the image's EXPOSE lines, "8080/tcp".
	ExposedPorts []string
}

// Progress is how far a pull is.
type Progress struct {
	Done, Total int64 // bytes; Total grows while manifests are read
}

// PullOptions say where a reference is fetched from.
type PullOptions struct {
	// Endpoint overrides the host that is asked ("127.0.0.1:5000"); the
	// image keeps its name. Loopback endpoints are spoken to in plain HTTP.
	// Ignored by docker, which asks the host in the reference.
	Endpoint string
	// Client makes the requests; nil: a default with timeouts. Ignored by
	// docker.
	Client *http.Client
	// Username and Password are offered when the registry asks.
	Username, Password string
	// Progress is called from several goroutines, seldom; nil: not at all.
	Progress func(Progress)
}

// Ref is a parsed image reference (the grammar of distribution/reference).
type Ref struct {
	Host       string // "docker.io" when not given
	Repository string // "library/busybox"
	Tag        string // empty when there is a digest and no tag
	Digest     string // "sha256:..." or empty
}

var (
	hostPattern   = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)
	repoPattern   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
)

// maxRef bounds a reference: 255 bytes of name, 128 of tag, 136 of digest.
const maxRef = 530

// ParseRef reads a reference as Docker does: "busybox" is
// docker.io/library/busybox:latest.
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, Fail(ErrInvalid, fmt.Errorf("%q: %s", s, why), "image reference")
	}
	if s == "" || len(s) > maxRef {
		return bad("want [host[:port]/]name[:tag][@digest]")
	}
	r := Ref{Host: "docker.io"}
	rest := s
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		rest, r.Digest = rest[:i], rest[i+1:]
		if !digestPattern.MatchString(r.Digest) {
			return bad("the digest must be sha256: and 64 lower-case hex digits")
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !tagPattern.MatchString(r.Tag) {
			return bad("bad tag")
		}
	}
	if host, name, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost" || strings.ToLower(host) != host) {
		if !hostPattern.MatchString(host) {
			return bad("bad registry host")
		}
		r.Host, rest = host, name
	}
	if r.Host == "index.docker.io" {
		r.Host = "docker.io"
	}
	if r.Host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	if len(rest) > 255 || !repoPattern.MatchString(rest) {
		return bad("the name must be lower-case letters, digits and single separators")
	}
	r.Repository = rest
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// String is the canonical form, which parses to the same Ref.
func (r Ref) String() string {
	s := r.Host + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}
