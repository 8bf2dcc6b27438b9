package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxPage bounds one answer of a listing; a Link header leads to the rest.
const maxPage = 1000

// compareNames is the specification's lexical order: case-insensitive.
func compareNames(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

// page sorts names and cuts out what the query's n and last ask for. It sets
// the Link header if there is more.
func page(w http.ResponseWriter, r *http.Request, names []string) ([]string, error) {
	q := r.URL.Query()
	n := maxPage
	if q.Has("n") {
		asked, err := strconv.Atoi(q.Get("n"))
		if err != nil || asked < 0 {
			return nil, apiError{http.StatusBadRequest, "UNSUPPORTED", fmt.Sprintf("n=%q: want a number from 0 on", q.Get("n"))}
		}
		n = min(asked, maxPage)
	}
	slices.SortFunc(names, compareNames)
	if last := q.Get("last"); last != "" {
		names = slices.DeleteFunc(names, func(s string) bool { return compareNames(s, last) <= 0 })
	}
	if len(names) <= n {
		return names, nil
	}
	names = names[:n]
	if n > 0 {
		q.Set("n", strconv.Itoa(n))
		q.Set("last", names[n-1])
		next := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
		w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
	}
	return names, nil
}

func (s *Server) listTags(w http.ResponseWriter, r *http.Request, at route) error {
	list, err := s.Index.Tags(r.Context(), at.repository)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(list))
	for _, t := range list {
		names = append(names, t.Name)
	}
	if names, err = page(w, r, names); err != nil {
		return err
	}
	return writeJSON(w, "application/json", map[string]any{"name": at.repository, "tags": names})
}

func (s *Server) listRepositories(w http.ResponseWriter, r *http.Request, _ route) error {
	names, err := s.Index.Repositories(r.Context())
	if err != nil {
		return err
	}
	if names, err = page(w, r, append([]string{}, names...)); err != nil {
		return err
	}
	return writeJSON(w, "application/json", map[string]any{"repositories": names})
}

// listReferrers answers an image index, empty when nothing refers to the
// digest, known or not.
func (s *Server) listReferrers(w http.ResponseWriter, r *http.Request, at route) error {
	found, err := s.Index.Referrers(r.Context(), at.repository, at.digest())
	if err != nil && !errors.Is(err, ErrNameUnknown) {
		return err
	}
	byDigest := map[string]Manifest{}
	wanted := r.URL.Query().Get("artifactType")
	for _, m := range found {
		if wanted == "" || m.ArtifactType == wanted {
			byDigest[string(m.Digest)] = m
		}
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	names := make([]string, 0, len(byDigest))
	for d := range byDigest {
		names = append(names, d)
	}
	if names, err = page(w, r, names); err != nil {
		return err
	}
	list := []Descriptor{}
	for _, d := range names {
		m := byDigest[d]
		list = append(list, Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations})
	}
	return writeJSON(w, MediaIndex, map[string]any{"schemaVersion": 2, "mediaType": MediaIndex, "manifests": list})
}

func writeJSON(w http.ResponseWriter, mediaType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", itoa(int64(len(b))))
	w.Write(b)
	return nil
}
