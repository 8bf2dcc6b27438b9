package api

import (
	"context"
	"net/http"
)

// operator is what the operators' changes need.
var operator = Need{Write: true, Operator: true}

// operate mounts an operators' change. Masters carry it out; on other nodes it
// is passed on to one, which looks at the sender's right itself.
func operate[T any](s *Server, path string, fn func(ctx context.Context, req *T) (any, error)) {
	s.onMaster("POST", path, decoded(s, func(*T) Need { return operator }, fn))
}

// operateRaw is operate for other methods and bodies.
func (s *Server) operateRaw(method, path string, fn handler) {
	s.onMaster(method, path, s.checked(operator, fn))
}

// onMaster mounts h where it may be carried out, and the way there elsewhere.
// first is what only the node that is asked can see; h looks at it too.
func (s *Server) onMaster(method, path string, h http.HandlerFunc, first ...func(*http.Request) error) {
	if s.Pass != nil {
		h = answered(func(w http.ResponseWriter, r *http.Request) error {
			for _, check := range first {
				if err := check(r); err != nil {
					return err
				}
			}
			return s.Pass(w, r)
		})
	}
	s.mux.HandleFunc(method+" "+Prefix+path, h)
}
