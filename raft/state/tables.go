package state

import (
	"fmt"
	"reflect"

	"appliance/node/model"

	"github.com/hashicorp/go-memdb"
)

// The tables. The order is that of snapshots and is part of no format.
var (
	Clusters     = define[model.Cluster]("cluster", func(c *model.Cluster) string { return c.ID })
	Nodes        = define[model.Node]("nodes", func(n *model.Node) string { return n.ID }, by("name", func(n *model.Node) string { return n.Name }))
	JoinTokens   = define[model.JoinToken]("join-tokens", func(t *model.JoinToken) string { return t.ID })
	APITokens    = define[model.APIToken]("api-tokens", func(t *model.APIToken) string { return t.ID })
	Environments = define[model.Environment]("environments", func(e *model.Environment) string { return e.Name })
	Leases       = define[model.Lease]("leases", func(l *model.Lease) string { return l.Name })
	Secrets      = define[model.Secret]("secrets", (*model.Secret).ID)
	Apps         = define[model.App]("apps", func(a *model.App) string { return a.ID }, by("env", func(a *model.App) string { return a.Env }))
	Releases     = define[model.Release]("releases", (*model.Release).Key, by("app", func(r *model.Release) string { return r.App }))
	Deployments  = define[model.Deployment]("deployments", func(d *model.Deployment) string { return d.ID },
		by("app", func(d *model.Deployment) string { return d.App }),
		by("running", func(d *model.Deployment) string {
			if d.State == model.DeploymentRunning {
				return "yes"
			}
			return ""
		}))
	Tasks = define[model.Task]("tasks", func(t *model.Task) string { return t.ID },
		by("app", func(t *model.Task) string { return t.App }),
		by("node", func(t *model.Task) string { return t.Node }),
		by("framework", func(t *model.Task) string { return t.Framework }),
		by("waiting", func(t *model.Task) string {
			if t.Node == "" && t.Live() {
				return "yes"
			}
			return ""
		}))
	Waiting    = define[model.Waiting]("waiting", func(w *model.Waiting) string { return w.App })
	Frameworks = define[model.Framework]("frameworks", func(f *model.Framework) string { return f.ID })
	KVs        = define[model.KV]("kv", func(k *model.KV) string { return k.Key }, by("session", func(k *model.KV) string { return k.Session }))
	Sessions   = define[model.Session]("sessions", func(s *model.Session) string { return s.ID }, by("node", func(s *model.Session) string { return s.Node }))
	Services   = define[model.ExternalService]("services", (*model.ExternalService).Key,
		by("node", func(s *model.ExternalService) string { return s.Node }),
		by("name", func(s *model.ExternalService) string { return s.Name }))
	Checks    = define[model.ExternalCheck]("checks", (*model.ExternalCheck).Key, by("node", func(c *model.ExternalCheck) string { return c.Node }))
	Volumes   = define[model.Volume]("volumes", func(v *model.Volume) string { return v.Name })
	Manifests = define[model.Manifest]("manifests", (*model.Manifest).Key,
		by("repo", func(m *model.Manifest) string { return m.Repo }),
		by("subject", func(m *model.Manifest) string {
			if m.Subject == "" {
				return ""
			}
			return m.Repo + "@" + m.Subject
		}))
	Tags   = define[model.Tag]("tags", (*model.Tag).Key, by("repo", func(t *model.Tag) string { return t.Repo }))
	Events = define[model.Event]("events", func(e *model.Event) string { return fmt.Sprintf("%020d.%04d", e.Seq, e.N) })
	Audit  = defineAudit("audit")
	// Staged holds the pieces of a snapshot file that is about to replace the
	// state. It is part of the state, so that a master which starts in between
	// has them too.
	Staged = define[model.StagedChunk]("staged", (*model.StagedChunk).Key)
)

// indexTable keeps, per table, the index of its last change; the row
// appliedRow is the index of the last applied entry.
const (
	indexTable = "index"
	appliedRow = "*"
)

type indexRow struct {
	Table string
	Index uint64
}

// registered tables, in order of definition.
var registered []*definition

// definition is what snapshots and the schema need of a table without its type.
type definition struct {
	name    string
	before  []byte // what stands before a row in a snapshot
	schema  *memdb.TableSchema
	newRow  func() any
	restore func(*Tx, any) error
	replace func(tx *Tx, index uint64, from *Snapshot)
	each    func(s *Snapshot, fn func(row any) error) error // in the order of ids
	count   func(*Snapshot) int
}

type secondary[T any] struct {
	name string
	key  func(*T) string
}

func by[T any](name string, key func(*T) string) secondary[T] { return secondary[T]{name, key} }

func define[T any](name string, key func(*T) string, indexes ...secondary[T]) Table[T] {
	t := Table[T]{Name: name, key: key, meta: func(row *T) *model.Meta {
		return any(row).(interface{ Record() *model.Meta }).Record()
	}}
	schema := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		"id": {Name: "id", Unique: true, Indexer: keyIndexer[T]{key: key, id: true}},
	}}
	for _, s := range indexes {
		schema.Indexes[s.name] = &memdb.IndexSchema{Name: s.name, AllowMissing: true, Indexer: keyIndexer[T]{key: s.key}}
	}
	registered = append(registered, &definition{
		name: name, before: []byte(recordPrefix(name)), schema: schema,
		newRow:  func() any { return reflect.New(reflect.TypeFor[T]()).Interface() },
		restore: func(tx *Tx, row any) error { t.restore(tx, row.(*T)); return nil },
		replace: t.replace,
		each:    t.each,
		count:   t.Count,
	})
	return t
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		indexTable: {Name: indexTable, Indexes: map[string]*memdb.IndexSchema{
			"id": {Name: "id", Unique: true, Indexer: keyIndexer[indexRow]{key: func(r *indexRow) string { return r.Table }, id: true}},
		}},
	}}
	for _, d := range registered {
		s.Tables[d.name] = d.schema
	}
	return s
}

func tableNames() []string {
	var names []string
	for _, d := range registered {
		names = append(names, d.name)
	}
	return names
}
