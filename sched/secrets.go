package sched

import (
	"maps"
	"slices"

	"appliance/node/model"
	"appliance/raft/state"
)

// validateSecrets judges which variables get which secrets.
func validateSecrets(f *faults, spec *model.AppSpec) {
	f.check(len(spec.Secrets) <= model.MaxAppSecrets, "/secrets", "are %d, at most %d are allowed", len(spec.Secrets), model.MaxAppSecrets)
	for _, variable := range slices.Sorted(maps.Keys(spec.Secrets)) {
		f.check(model.ValidEnvName(variable), "/secrets", "%q cannot be the name of a variable", variable)
		f.check(model.ValidSecretName(spec.Secrets[variable]), "/secrets/"+variable, "%q cannot be the name of a secret", spec.Secrets[variable])
		_, twice := spec.Env[variable]
		f.check(!twice, "/secrets/"+variable, "is also in env: which one counts?")
	}
}

// admitSecrets refuses a spec that names secrets which are not there.
func admitSecrets(s *state.Snapshot, env string, spec *model.AppSpec) error {
	for _, name := range spec.SecretNames() {
		if state.FindSecret(s, env, name) == nil {
			return model.Errorf(model.CodeNotFound, "there is no secret %s", name).
				Because("%s needs it", spec.ID).Try("make it first: appliance secret put %s --env %s", name, env)
		}
	}
	return nil
}
