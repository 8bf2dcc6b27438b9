package command

import (
	"fmt"

	"appliance/node/model"
	"appliance/raft/state"
)

// PutSecret adds a secret or its next version. The value comes sealed.
type PutSecret struct {
	Secret model.Secret `json:"secret"`
}

func (c *PutSecret) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	s, next := &tx.Snapshot, c.Secret
	if next.Key == "" || len(next.Wrapped) == 0 || !model.ValidSecretName(next.Name) {
		return nil, model.Errorf(model.CodeInvalid, "the secret %q is not sealed, or its name is not possible", next.Name).
			Try("use letters, digits, '-', '_' and '.'")
	}
	if next.Env != "" {
		if refusal := environmentExists(s, next.Env); refusal != nil {
			return nil, refusal
		}
	}
	old, last := state.Secrets.Get(s, next.ID()), uint64(0)
	if old != nil {
		last, next.CreatedAt = old.Version, old.CreatedAt
	} else if state.Secrets.Count(s) >= model.MaxSecrets {
		return nil, model.Errorf(model.CodeExhausted, "there are too many secrets").Because("a cluster keeps %d", model.MaxSecrets).
			Try("remove those that no app uses: appliance secret list")
	}
	// The version is part of the seal, so it was decided before.
	if next.Version != last+1 {
		return nil, model.Errorf(model.CodeConflict, "secret %s was changed by somebody else", next.ID()).Try("look at it and try again")
	}
	state.Secrets.Put(tx, index, &next)
	record(tx, index, next.UpdatedAt, "secret", next.ID(), fmt.Sprintf("has version %d", next.Version), nil)
	return nil, nil
}

// DeleteSecret removes a secret that no app uses.
type DeleteSecret struct {
	Name string `json:"name"`
	Env  string `json:"env,omitempty" level:"2"`
}

func (c *DeleteSecret) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	id := model.SecretID(c.Env, c.Name)
	if state.Secrets.Get(&tx.Snapshot, id) == nil {
		return nil, unknownSecret(c.Env, c.Name)
	}
	for a := range state.Apps.All(&tx.Snapshot) {
		if state.SecretUsers(&tx.Snapshot, a)[id] {
			return nil, model.Errorf(model.CodeConflict, "secret %s is in use", id).Because("app %s needs it", a.ID).
				Try("deploy the app without it, or stop the app, first")
		}
	}
	state.Secrets.Delete(tx, index, id)
	return nil, nil
}

func unknownSecret(env, name string) *model.Error {
	e := model.Errorf(model.CodeNotFound, "there is no secret %s", name)
	if env != "" {
		return e.Because("neither environment %s nor the cluster has one of that name", env).Try("make it with: appliance secret put %s --env %s", name, env)
	}
	return e.Try("list them with: appliance secret list")
}

// secretsExist refuses a spec that names a secret which is not there.
func secretsExist(s *state.Snapshot, env string, spec *model.AppSpec) *model.Error {
	for _, name := range spec.SecretNames() {
		if state.FindSecret(s, env, name) == nil {
			return unknownSecret(env, name)
		}
	}
	return nil
}

// Reseal puts the keys of secrets under another seal key. Values and versions
// stay; a secret that has changed meanwhile is left out.
type Reseal struct {
	Key     string          `json:"key"` // id of the seal key
	Secrets []ResealedValue `json:"secrets"`
}

// ResealedValue is the new form of one secret's key.
type ResealedValue struct {
	ID      string `json:"id"`
	Version uint64 `json:"version"`
	Wrapped []byte `json:"wrapped"`
}

func (c *Reseal) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	for _, r := range c.Secrets {
		old := state.Secrets.Get(&tx.Snapshot, r.ID)
		if old == nil || old.Version != r.Version {
			continue
		}
		next := *old
		next.Key, next.Wrapped = c.Key, r.Wrapped
		state.Secrets.Put(tx, index, &next)
	}
	return nil, nil
}
