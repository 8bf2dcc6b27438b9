package registry

import (
	"net/http"
	"strings"

	"appliance/registry/ref"
)

// resource is what a path under /v2/ names.
type resource int

const (
	ping resource = iota
	catalog
	tags
	referrers
	manifests
	blobs
	uploads
	upload
)

// route is a parsed path. Repository is well-formed; object is a digest, tag
// or upload id, well-formed for manifests, blobs and referrers.
type route struct {
	resource   resource
	repository string
	object     string
}

func (at route) digest() ref.Digest { return ref.Digest(at.object) }

// action is what the request needs to be allowed to do.
func (at route) action(method string) Action {
	switch {
	case at.resource == ping:
		return Login
	case at.resource == catalog:
		return List
	case method == http.MethodDelete && at.resource != upload:
		return Delete
	case at.resource == uploads || at.resource == upload || method == http.MethodPut:
		return Push
	}
	return Pull
}

// parseRoute reads a path from its end, for names contain slashes.
func parseRoute(path string) (route, error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || rest == "" && ok:
		return route{resource: ping}, nil
	case !ok:
		return route{}, apiError{http.StatusNotFound, "UNSUPPORTED", "this is a registry: its API is below /v2/"}
	case rest == "_catalog":
		return route{resource: catalog}, nil
	}
	at, err := splitRoute(rest)
	if err != nil {
		return route{}, err
	}
	if err := ref.CheckName(at.repository); err != nil {
		return route{}, err
	}
	return at, at.checkObject()
}

func splitRoute(rest string) (route, error) {
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return route{tags, name, ""}, nil
	}
	for _, suffix := range []string{"/blobs/uploads/", "/blobs/uploads"} {
		if name, ok := strings.CutSuffix(rest, suffix); ok {
			return route{uploads, name, ""}, nil
		}
	}
	head, object := cutLast(rest)
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		return route{upload, name, object}, nil
	}
	name, kind := cutLast(head)
	resources := map[string]resource{"manifests": manifests, "blobs": blobs, "referrers": referrers}
	if r, ok := resources[kind]; ok {
		return route{r, name, object}, nil
	}
	return route{}, apiError{http.StatusNotFound, "UNSUPPORTED", "no such endpoint of the OCI distribution API"}
}

func cutLast(s string) (head, last string) {
	i := strings.LastIndexByte(s, '/')
	return s[:max(i, 0)], s[i+1:]
}

func (at route) checkObject() error {
	switch at.resource {
	case blobs, referrers:
		_, err := ref.ParseDigest(at.object)
		return err
	case manifests:
		if strings.Contains(at.object, ":") {
			_, err := ref.ParseDigest(at.object)
			return err
		}
		return ref.CheckTag(at.object)
	}
	return nil
}
