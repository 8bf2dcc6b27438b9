package model

import "time"

// Secret is a small value that only masters can read. State, log, snapshots
// and feed hold it sealed; it is never part of an API answer.
type Secret struct {
	Meta
	Name    string `json:"name"`
	Env     string `json:"env,omitempty" level:"2"` // environment whose apps may use it, "" for all
	Version uint64 `json:"version,omitempty" level:"2"`
	// Value is the sealed value and Wrapped the key that it is sealed with, which
	// is itself sealed with the cluster's seal key of the id Key.
	Value     []byte    `json:"value"`
	Wrapped   []byte    `json:"wrapped,omitempty" level:"2"`
	Key       string    `json:"key,omitempty" level:"2"`
	CreatedAt time.Time `json:"createdAt,omitzero" level:"2"`
	UpdatedAt time.Time `json:"updatedAt,omitzero" level:"2"`
}

// ID is the state key of a secret.
func (s *Secret) ID() string { return SecretID(s.Env, s.Name) }

// SecretID is the state key of a secret: "test/db-password", or "db-password"
// for all environments. Names have no slash.
func SecretID(env, name string) string {
	if env == "" {
		return name
	}
	return env + "/" + name
}

const (
	// MaxSecret bounds a value: keys, certificates and passwords, not files.
	MaxSecret = 64 << 10
	// MaxSecrets bounds the table: every node holds it in memory.
	MaxSecrets = 2000
	// MaxAppSecrets bounds what one app uses; all of it is fetched at each start.
	MaxAppSecrets = 64
)

// ValidSecretName reports whether a name can be one: it becomes a file name.
func ValidSecretName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// ValidEnvName reports whether s can be the name of an environment variable.
func ValidEnvName(s string) bool {
	if s == "" || len(s) > 128 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}
