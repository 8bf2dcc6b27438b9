package state

import "appliance/node/model"

// FindSecret returns the secret that an app of env means by a name: that of
// its environment, else that of the whole cluster, nil if there is neither.
func FindSecret(s *Snapshot, env, name string) *model.Secret {
	if own := Secrets.Get(s, model.SecretID(env, name)); own != nil {
		return own
	}
	return Secrets.Get(s, name)
}

// SecretUsers are the ids of the secrets that an app needs: for the release
// that it has, and for the one that it goes back to if that fails.
func SecretUsers(s *Snapshot, a *model.App) map[string]bool {
	var ids map[string]bool
	for _, version := range []uint64{a.Release, a.Stable} {
		rel := Releases.Get(s, model.ReleaseKey(a.ID, version))
		if rel == nil || len(rel.Spec.Secrets) == 0 {
			continue
		}
		if ids == nil {
			ids = map[string]bool{}
		}
		for _, name := range rel.Spec.SecretNames() {
			if found := FindSecret(s, a.Env, name); found != nil {
				ids[found.ID()] = true
			}
		}
	}
	return ids
}
