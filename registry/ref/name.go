package ref

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrName marks a repository name outside the grammar of the specification.
var ErrName = errors.New("invalid repository name")

// ErrTag marks a tag outside the grammar of the specification.
var ErrTag = errors.New("invalid tag")

// ErrReference marks text that is not an image reference.
var ErrReference = errors.New("invalid image reference")

// ErrRange marks an upload range that is not "<first>-<last>".
var ErrRange = errors.New("invalid content range")

// MaxName is the longest repository name in bytes; clients reject more.
const MaxName = 255

// MaxTag is the longest tag in bytes (OCI distribution 1.1).
const MaxTag = 128

// CheckName says whether s is a repository name such as "team/notejam".
func CheckName(s string) error {
	if len(s) > MaxName {
		return fmt.Errorf("%w %q: longer than %d bytes", ErrName, clip(s), MaxName)
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part) {
			return fmt.Errorf("%w %q: want lower-case letters and digits, separated by '.', '_', '__' or '-', in parts joined by '/'", ErrName, clip(s))
		}
	}
	return nil
}

// validComponent matches [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(s[i]) {
			i++
			continue
		}
		start := i
		for i < len(s) && !alnum(s[i]) {
			i++
		}
		separator := s[start:i]
		if separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
			return false
		}
	}
	return true
}

func alnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// CheckTag says whether s is a tag.
func CheckTag(s string) error {
	ok := s != "" && len(s) <= MaxTag && s[0] != '.' && s[0] != '-'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = alnum(c) || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%w %q: want 1 to %d letters, digits, '_', '.', '-', not beginning with '.' or '-'", ErrTag, clip(s), MaxTag)
	}
	return nil
}

// Reference is an image as a user writes it: [host/]repository[:tag][@digest].
type Reference struct {
	Host       string // host[:port]; empty means the cluster's own registry
	Repository string
	Tag        string
	Digest     Digest
}

// Parse reads an image reference. Neither tag nor digest is made up: a caller
// that wants "latest" says so itself.
func Parse(s string) (Reference, error) {
	var r Reference
	rest := s
	if head, digest, ok := strings.Cut(rest, "@"); ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return Reference{}, fmt.Errorf("%w %q: %w", ErrReference, clip(s), err)
		}
		r.Digest, rest = d, head
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag, rest = rest[i+1:], rest[:i]
		if err := CheckTag(r.Tag); err != nil {
			return Reference{}, fmt.Errorf("%w %q: %w", ErrReference, clip(s), err)
		}
	}
	if host, name, ok := strings.Cut(rest, "/"); ok && isHost(host) {
		if !validHost(host) {
			return Reference{}, fmt.Errorf("%w %q: bad host %q", ErrReference, clip(s), clip(host))
		}
		r.Host, rest = host, name
	}
	if err := CheckName(rest); err != nil {
		return Reference{}, fmt.Errorf("%w %q: %w", ErrReference, clip(s), err)
	}
	r.Repository = rest
	return r, nil
}

// isHost uses Docker's rule: the first part is a host if it holds a dot, a
// colon or an upper-case letter, or is "localhost".
func isHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:") || strings.ToLower(s) != s
}

func validHost(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		port, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || port == 0 {
			return false
		}
		host = s[:i]
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return strings.Trim(host[1:len(host)-1], "0123456789abcdefABCDEF:.") == ""
	}
	return host != "" && strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// String writes the reference so that Parse reads it back.
func (r Reference) String() string {
	s := r.Repository
	if r.Host != "" {
		s = r.Host + "/" + s
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Object returns what identifies the manifest within the repository: the
// digest if there is one, else the tag, else "latest".
func (r Reference) Object() string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	if r.Tag != "" {
		return r.Tag
	}
	return "latest"
}

// ParseRange reads the Content-Range of an upload chunk, "<first>-<last>",
// both inclusive (OCI distribution 1.1; not the form of RFC 9110).
func ParseRange(s string) (first, last int64, err error) {
	a, b, ok := strings.Cut(s, "-")
	first, err1 := parseOffset(a)
	last, err2 := parseOffset(b)
	if !ok || err1 != nil || err2 != nil || last < first {
		return 0, 0, fmt.Errorf("%w %q: want <first>-<last>, both inclusive", ErrRange, clip(s))
	}
	return first, last, nil
}

// parseOffset refuses signs and spaces, which strconv would let through.
func parseOffset(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, ErrRange
	}
	return strconv.ParseInt(s, 10, 64)
}
