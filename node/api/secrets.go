package api

import (
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// Secrets seals values for the log.
type Secrets interface {
	// PutSecret stores the next version of a secret; env "" is all.
	PutSecret(ctx context.Context, p command.Proposer, env, name string, value []byte) (*model.Secret, error)
}

// SecretView is a secret without its value.
type SecretView struct {
	Name    string    `json:"name"`
	Env     string    `json:"env,omitempty"`
	Version uint64    `json:"version"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	UsedBy  []string  `json:"usedBy"`
}

// SecretRequest is the body of POST /secrets.
type SecretRequest struct {
	Name  string `json:"name"`
	Env   string `json:"env,omitempty"`
	Value []byte `json:"value"` // base64
}

func (s *Server) secretRoutes() {
	s.raw("GET", "/secrets", Need{}, s.current(s.secrets))
	s.onMaster("POST", "/secrets", s.checked(Need{}, s.putSecret), unheard) // only masters have the key
	s.onMaster("DELETE", "/secrets/{name}", s.checked(Need{}, s.removeSecret))
}

// needSecret is who may change or list the secrets of an environment: those
// who may deploy there. Those of all environments are the operator's.
func needSecret(env string) Need {
	if env == "" {
		return Need{Write: true, Operator: true}
	}
	return Need{Write: true, Deploy: env}
}

func (s *Server) secrets(w http.ResponseWriter, r *http.Request) error {
	snap := s.Store.Snapshot()
	out := []SecretView{}
	denied := s.Authorize(r, needSecret(""))
	for secret := range state.Secrets.All(snap) {
		if denied != nil && (secret.Env == "" || s.Authorize(r, needSecret(secret.Env)) != nil) {
			continue
		}
		out = append(out, secretView(snap, secret))
	}
	if denied != nil && len(out) == 0 {
		return denied
	}
	return answer(w, http.StatusOK, out)
}

func secretView(snap *state.Snapshot, secret *model.Secret) SecretView {
	v := SecretView{Name: secret.Name, Env: secret.Env, Version: secret.Version, Created: secret.CreatedAt, Updated: secret.UpdatedAt, UsedBy: []string{}}
	for a := range state.Apps.All(snap) {
		if state.SecretUsers(snap, a)[secret.ID()] {
			v.UsedBy = append(v.UsedBy, a.ID)
		}
	}
	slices.Sort(v.UsedBy)
	return v
}

func (s *Server) putSecret(w http.ResponseWriter, r *http.Request) error {
	var req SecretRequest
	if strict(http.MaxBytesReader(w, r.Body, maxBody), &req) != nil { // its text may quote the value
		return model.Errorf(model.CodeInvalid, "the request cannot be read").Because("it is not a name, an environment and a value in base64")
	}
	if err := s.Authorize(r, needSecret(req.Env)); err != nil {
		return err
	}
	if err := unheard(r); err != nil {
		return err
	}
	switch {
	case !model.ValidSecretName(req.Name):
		return model.Errorf(model.CodeInvalid, "%q cannot be the name of a secret", req.Name).Because("it becomes a file name").
			Try("use up to 128 letters, digits, '-', '_' and '.'")
	case len(req.Value) == 0 || len(req.Value) > model.MaxSecret:
		return model.Errorf(model.CodeInvalid, "a secret of %d bytes is not possible", len(req.Value)).Because("it may have 1 to %d", model.MaxSecret)
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	secret, err := s.Secrets.PutSecret(ctx, s.Proposer, req.Env, req.Name, req.Value)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, secretView(s.Store.Snapshot(), secret))
}

// unheard refuses a request that others on the network can read.
func unheard(r *http.Request) error {
	if !overheard(r) {
		return nil
	}
	return model.Errorf(model.CodeDenied, "a secret does not travel unencrypted").Because("this connection comes from another machine without TLS").
		Try("run it on a master, for example over ssh")
}

// overheard reports whether others on the network can read a request.
func overheard(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || r.TLS != nil { // the unix socket has no address
		return false
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback()
}

func (s *Server) removeSecret(w http.ResponseWriter, r *http.Request) error {
	env := r.URL.Query().Get("env")
	if err := s.Authorize(r, needSecret(env)); err != nil {
		return err
	}
	return s.done(w, r, &command.DeleteSecret{Name: r.PathValue("name"), Env: env})
}
