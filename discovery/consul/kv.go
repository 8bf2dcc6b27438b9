package consul

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

const kvPrefix = "/v1/kv/"

type kvJSON struct {
	LockIndex   uint64
	Key         string
	Flags       uint64
	Value       []byte // base64; null when empty
	Session     string `json:",omitempty"`
	CreateIndex uint64
	ModifyIndex uint64
}

func kvOf(row *model.KV) kvJSON {
	out := kvJSON{
		LockIndex: row.LockIndex, Key: row.Key, Flags: row.Flags, Value: row.Value, Session: row.Session,
		CreateIndex: row.CreateIndex, ModifyIndex: row.ModifyIndex,
	}
	if len(out.Value) == 0 {
		out.Value = nil
	}
	return out
}

func (s *Server) kvGet(w http.ResponseWriter, r *http.Request) error {
	q, key := r.URL.Query(), rest(r, kvPrefix)
	tables := []string{state.KVs.Name}
	switch {
	case q.Has("keys"):
		return s.read(w, r, query{tables: tables, run: func(v view) (any, uint64, bool, error) {
			out := keys(v.snap, key, separator(q))
			return out, 0, len(out) > 0 || key == "", nil
		}})
	case q.Has("recurse"):
		return s.read(w, r, query{tables: tables, run: func(v view) (any, uint64, bool, error) {
			out := []kvJSON{}
			for row := range state.KVs.Prefix(v.snap, key) {
				out = append(out, kvOf(row))
			}
			return out, 0, len(out) > 0, nil
		}})
	case key == "":
		return fail(http.StatusBadRequest, "Missing key name")
	}
	if q.Has("raw") {
		h := w.Header()
		h.Set("Content-Type", "text/plain")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "sandbox")
	}
	return s.read(w, r, query{tables: tables, text: q.Has("raw"), run: func(v view) (any, uint64, bool, error) {
		row := state.KVs.Get(v.snap, key)
		switch {
		case row == nil:
			return nil, 0, false, nil
		case q.Has("raw"):
			return append([]byte{}, row.Value...), row.ModifyIndex, true, nil
		}
		return []kvJSON{kvOf(row)}, row.ModifyIndex, true, nil
	}})
}

// separator also knows the spelling that Consul documented by mistake.
func separator(q url.Values) string {
	if v := q.Get("separator"); v != "" {
		return v
	}
	return q.Get("seperator")
}

// keys lists the keys under prefix; with a separator those that share a part
// up to it are one entry.
func keys(snap *state.Snapshot, prefix, sep string) []string {
	out := []string{}
	for row := range state.KVs.Prefix(snap, prefix) {
		key := row.Key
		if sep != "" {
			if i := strings.Index(key[len(prefix):], sep); i >= 0 {
				key = key[:len(prefix)+i+len(sep)]
			}
		}
		if len(out) == 0 || out[len(out)-1] != key {
			out = append(out, key)
		}
	}
	return out
}

func (s *Server) kvPut(w http.ResponseWriter, r *http.Request) error {
	q, key := r.URL.Query(), rest(r, kvPrefix)
	if key == "" {
		return fail(http.StatusBadRequest, "Missing key name")
	}
	op := command.KVOp{Verb: "set", Key: key}
	if err := writeMode(q, &op, "cas", "acquire", "release"); err != nil {
		return err
	}
	if v := q.Get("flags"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return fail(http.StatusBadRequest, "Invalid flags: "+err.Error())
		}
		op.Flags = n
	}
	value, err := readBody(r, maxValue)
	if err != nil {
		return err
	}
	op.Value = value
	return s.kvWrite(w, r, op)
}

// writeMode reads the parameters that make a write conditional. They exclude
// each other.
func writeMode(q url.Values, op *command.KVOp, allowed ...string) error {
	n := 0
	for _, name := range allowed {
		if q.Has(name) {
			n++
		}
	}
	if n > 1 {
		return fail(http.StatusBadRequest, "Conflicting flags: "+q.Encode())
	}
	for _, name := range allowed {
		if !q.Has(name) {
			continue
		}
		switch name {
		case "cas":
			index, err := strconv.ParseUint(q.Get("cas"), 10, 64)
			if err != nil {
				return fail(http.StatusBadRequest, "Invalid cas: "+err.Error())
			}
			op.Index = index
			op.Verb = map[string]string{"set": "cas", "delete": "delete-cas"}[op.Verb]
		case "acquire":
			op.Verb, op.Session = "lock", q.Get("acquire")
		case "release":
			op.Verb, op.Session = "unlock", q.Get("release")
		case "recurse":
			op.Verb = "delete-tree"
		}
	}
	return nil
}

func (s *Server) kvDelete(w http.ResponseWriter, r *http.Request) error {
	q, key := r.URL.Query(), rest(r, kvPrefix)
	op := command.KVOp{Verb: "delete", Key: key}
	if key == "" && !q.Has("recurse") {
		return fail(http.StatusBadRequest, "Missing key name")
	}
	if err := writeMode(q, &op, "recurse", "cas"); err != nil {
		return err
	}
	if op.Verb == "delete-cas" && op.Index == 0 {
		return s.respond(w, r, state.KVs.Get(s.cfg.Store.Snapshot(), key) == nil)
	}
	return s.kvWrite(w, r, op)
}

// kvWrite answers true, or false for a condition that did not hold.
func (s *Server) kvWrite(w http.ResponseWriter, r *http.Request, op command.KVOp) error {
	res, err := s.propose(r.Context(), &command.KVTxn{Ops: []command.KVOp{op}, At: time.Now()})
	if err != nil {
		return err
	}
	var out command.KVTxnResult
	if err := res.Decode(&out); err != nil {
		return err
	}
	for _, e := range out.Errors {
		if strings.Contains(e.What, "invalid session") {
			return fail(http.StatusInternalServerError, "raft apply failed: invalid session \""+op.Session+"\"")
		}
	}
	return s.respond(w, r, len(out.Errors) == 0)
}
