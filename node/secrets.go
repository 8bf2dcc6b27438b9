package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	// pathSecrets is where a master opens the secrets of a task for the node
	// that the task is placed on.
	pathSecrets = "/rpc/secrets"
	// secretCall bounds one question to a master.
	secretCall = 5 * time.Second
	// maxSecretBody bounds the answer: all secrets of an app in base64.
	maxSecretBody = 2*model.MaxAppSecrets*model.MaxSecret + 64<<10
	// secretTries is how often a put is repeated that another one overtook.
	secretTries = 3
)

// secrets seals and opens values. Only masters have the key; plain values are
// in no file, no log and no answer but that of pathSecrets.
type secrets struct {
	trust *trustKeeper
	sync  func(context.Context) error
}

// PutSecret implements api.Secrets.
func (s *secrets) PutSecret(ctx context.Context, p command.Proposer, env, name string, value []byte) (*model.Secret, error) {
	if s.trust.ca == nil {
		return nil, model.Errorf(model.CodeDenied, "an agent takes no secrets").Because("only masters have the key that they are sealed with").
			Try("run it on a master, one of: %s", strings.Join(s.trust.masters(), " "))
	}
	var err error
	for range secretTries {
		if err = s.sync(ctx); err != nil {
			return nil, unavailable(err)
		}
		var next *model.Secret
		if next, err = s.seal(env, name, value); err != nil {
			return nil, err
		}
		_, err = command.Do(ctx, p, &command.PutSecret{Secret: *next})
		if err == nil {
			return next, nil
		}
		if model.CodeOf(err) != model.CodeConflict {
			return nil, err
		}
	}
	return nil, err
}

// seal makes the next version of a secret.
func (s *secrets) seal(env, name string, value []byte) (*model.Secret, error) {
	t := s.trust.current()
	if t == nil || t.Seal.Active == "" {
		return nil, model.Errorf(model.CodeUnavailable, "the cluster has no seal key yet").
			Because("its leader makes one when all nodes run this version").Try("see: appliance upgrade; then try again")
	}
	key, err := s.trust.sealKey(t.Seal.Use())
	if err != nil {
		return nil, model.Errorf(model.CodeUnavailable, "this master does not have the seal key").Because("%v", err).Try("try again in a moment, or on another master")
	}
	now := time.Now().UTC()
	next := &model.Secret{Name: name, Env: env, Version: 1, Key: key.ID(), CreatedAt: now, UpdatedAt: now}
	if old := state.Secrets.Get(s.trust.store.Snapshot(), next.ID()); old != nil {
		next.Version = old.Version + 1
	}
	sealed, err := key.Seal(rand.Reader, next.ID(), next.Version, value)
	next.Value, next.Wrapped = sealed.Value, sealed.Wrapped
	return next, err
}

// open reads a secret.
func (s *secrets) open(secret *model.Secret) ([]byte, error) {
	key, err := s.trust.sealKey(secret.Key)
	if err != nil {
		return nil, model.Errorf(model.CodeUnavailable, "secret %s cannot be opened here", secret.ID()).
			Because("this master does not have the key %s", secret.Key).
			Try("put the secret again, or bring that key back: pki/keys/%s.key of a master's data directory of that time", secret.Key)
	}
	value, err := key.Open(secret.ID(), secret.Version, pki.Sealed{Value: secret.Value, Wrapped: secret.Wrapped})
	if err != nil {
		return nil, model.Errorf(model.CodeInternal, "secret %s is damaged", secret.ID()).Because("%v", err).Try("put it again")
	}
	return value, nil
}

// serve answers a node that is about to start a task: exactly the secrets
// that the task's release names, if the task is placed on that node.
func (s *secrets) serve(w http.ResponseWriter, r *http.Request) {
	values, err := s.ofTask(r, r.URL.Query().Get("task"))
	if err != nil {
		var e *model.Error
		if !errors.As(err, &e) {
			e = model.Errorf(model.CodeDenied, "%v", err)
		}
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(e) // the caller is gone if this fails
		return
	}
	_ = json.NewEncoder(w).Encode(values)
}

func (s *secrets) ofTask(r *http.Request, id string) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(r.Context(), secretCall)
	defer cancel()
	if err := s.sync(ctx); err != nil {
		return nil, unavailable(err)
	}
	n, err := s.trust.member(r)
	if err != nil {
		return nil, err
	}
	snap := s.trust.store.Snapshot()
	t := state.Tasks.Get(snap, id)
	if t == nil || t.Node != n.ID || !t.Live() {
		return nil, model.Errorf(model.CodeDenied, "node %s may not have the secrets of task %s", n.Name, id).Because("the task is not placed there")
	}
	rel := state.Releases.Get(snap, model.ReleaseKey(t.App, t.Release))
	if rel == nil {
		return nil, model.Errorf(model.CodeNotFound, "the release of task %s is gone", id)
	}
	env, _ := model.SplitAppID(t.App)
	out := map[string][]byte{}
	for _, name := range rel.Spec.SecretNames() {
		secret := state.FindSecret(snap, env, name)
		if secret == nil {
			return nil, model.Errorf(model.CodeNotFound, "there is no secret %s", name).Try("make it with: appliance secret put %s --env %s", name, env)
		}
		if out[name], err = s.open(secret); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fetch asks a master for the secrets of a task of this node, by name.
func (s *secrets) fetch(ctx context.Context, task string) (map[string][]byte, error) {
	failed := error(model.Errorf(model.CodeUnavailable, "no master is known"))
	for _, addr := range s.trust.masters() {
		values, err := s.ask(ctx, addr, task)
		if err == nil {
			return values, nil
		}
		failed = err
		if code := model.CodeOf(err); code == model.CodeNotFound || code == model.CodeDenied {
			break // all masters say the same
		}
	}
	return nil, failed
}

func (s *secrets) ask(ctx context.Context, addr, task string) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretCall)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+pathSecrets+"?task="+url.QueryEscape(task), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.trust.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxSecretBody))
	if resp.StatusCode != http.StatusOK {
		e := &model.Error{}
		if body.Decode(e) != nil || e.What == "" {
			return nil, fmt.Errorf("master %s answered %s", addr, resp.Status)
		}
		return nil, e
	}
	var values map[string][]byte
	if err := body.Decode(&values); err != nil {
		return nil, fmt.Errorf("the answer of master %s was cut short", addr) // never with its content
	}
	return values, nil
}
