// Package gc decides what a registry may delete. It is pure: the caller lists
// what there is, and deletes.
//
// Garbage goes in two steps. A manifest that nothing keeps is forgotten by the
// index (which checks again when it applies the entry). Only in a later pass,
// when no manifest of the index refers to a blob any more, is the blob
// deletable. So a mistake about manifests never costs bytes at once.
package gc

import (
	"maps"
	"slices"
	"time"

	"appliance/registry/ref"
)

// Grace is how long something new or just touched is kept although nothing
// refers to it: a push uploads blobs long before the manifest that names them.
const Grace = time.Hour

// Manifest is one entry of the index.
type Manifest struct {
	Repository string
	Digest     ref.Digest
	Subject    ref.Digest   // empty unless it refers to another manifest
	Blobs      []ref.Digest // config and layers
	Manifests  []ref.Digest // children
	PushedAt   time.Time
}

// Name identifies a manifest; the same digest may be in several repositories.
type Name struct {
	Repository string
	Digest     ref.Digest
}

// Blob is a file of a store, with when it was stored or last touched.
type Blob struct {
	Digest   ref.Digest
	Modified time.Time
}

// Input is what there is. Manifests and Tags must be of one snapshot, and at
// most Grace/2 older than Now: a push that the snapshot lacks has touched its
// blobs later.
type Input struct {
	Manifests []Manifest
	Tags      []Name       // where tags point, and their history as far as it is to be kept
	InUse     []ref.Digest // manifests of releases and running tasks, in any repository
	Blobs     []Blob
	Now       time.Time
	Grace     time.Duration // 0 means Grace
}

// Plan is what may be deleted, sorted.
type Plan struct {
	Manifests []Name
	Blobs     []ref.Digest
}

// Collect returns what may be deleted. A manifest is kept while a tag points
// at it, it is in use, it is young, a kept index contains it, or its subject
// is kept.
func Collect(in Input) Plan {
	if in.Grace == 0 {
		in.Grace = Grace
	}
	limit := in.Now.Add(-in.Grace)
	kept := keep(in, limit)
	var plan Plan
	referenced := map[ref.Digest]bool{}
	for _, m := range in.Manifests {
		if !kept[Name{m.Repository, m.Digest}] {
			plan.Manifests = append(plan.Manifests, Name{m.Repository, m.Digest})
		}
		referenced[m.Digest] = true
		for _, d := range slices.Concat(m.Blobs, m.Manifests) {
			referenced[d] = true
		}
	}
	for _, d := range in.InUse {
		referenced[d] = true
	}
	garbage := map[ref.Digest]bool{}
	for _, b := range in.Blobs {
		if !referenced[b.Digest] && b.Modified.Before(limit) {
			garbage[b.Digest] = true
		}
	}
	plan.Blobs = slices.Sorted(maps.Keys(garbage))
	slices.SortFunc(plan.Manifests, compare)
	plan.Manifests = slices.Compact(plan.Manifests)
	return plan
}

func compare(a, b Name) int {
	switch {
	case a.Repository != b.Repository && a.Repository < b.Repository, a.Repository == b.Repository && a.Digest < b.Digest:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// keep walks from the roots to children and referrers.
func keep(in Input, limit time.Time) map[Name]bool {
	inUse := map[ref.Digest]bool{}
	for _, d := range in.InUse {
		inUse[d] = true
	}
	all := map[Name]Manifest{}
	referrers := map[Name][]Name{}
	todo := slices.Clone(in.Tags)
	for _, m := range in.Manifests {
		name := Name{m.Repository, m.Digest}
		all[name] = m
		if m.Subject != "" {
			subject := Name{m.Repository, m.Subject}
			referrers[subject] = append(referrers[subject], name)
		}
		if inUse[m.Digest] || !m.PushedAt.Before(limit) {
			todo = append(todo, name)
		}
	}
	kept := map[Name]bool{}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m, ok := all[name]
		if !ok || kept[name] {
			continue
		}
		kept[name] = true
		for _, d := range m.Manifests {
			todo = append(todo, Name{name.Repository, d})
		}
		todo = append(todo, referrers[name]...)
	}
	return kept
}
