package gc

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"appliance/registry/ref"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestCollect(t *testing.T) {
	old, young := now.Add(-2*time.Hour), now.Add(-time.Minute)
	manifest := func(d ref.Digest, change func(*Manifest)) Manifest {
		m := Manifest{Repository: "a", Digest: d, PushedAt: old}
		if change != nil {
			change(&m)
		}
		return m
	}
	for name, tc := range map[string]struct {
		in        Input
		manifests []Name
		blobs     []ref.Digest
	}{
		"tagged":              {in: Input{Manifests: []Manifest{manifest("m", nil)}, Tags: []Name{{"a", "m"}}}},
		"untagged":            {in: Input{Manifests: []Manifest{manifest("m", nil)}}, manifests: []Name{{"a", "m"}}},
		"tagged elsewhere":    {in: Input{Manifests: []Manifest{manifest("m", nil)}, Tags: []Name{{"b", "m"}}}, manifests: []Name{{"a", "m"}}},
		"in use":              {in: Input{Manifests: []Manifest{manifest("m", nil)}, InUse: []ref.Digest{"m"}}},
		"just pushed":         {in: Input{Manifests: []Manifest{manifest("m", func(m *Manifest) { m.PushedAt = young })}}},
		"child of tagged":     {in: Input{Manifests: []Manifest{manifest("m", nil), manifest("i", func(m *Manifest) { m.Manifests = []ref.Digest{"m"} })}, Tags: []Name{{"a", "i"}}}},
		"referrer of tagged":  {in: Input{Manifests: []Manifest{manifest("m", nil), manifest("s", func(m *Manifest) { m.Subject = "m" })}, Tags: []Name{{"a", "m"}}}},
		"referrer of garbage": {in: Input{Manifests: []Manifest{manifest("m", nil), manifest("s", func(m *Manifest) { m.Subject = "m" })}}, manifests: []Name{{"a", "m"}, {"a", "s"}}},
		"cycle of subjects": {in: Input{Manifests: []Manifest{manifest("m", func(m *Manifest) { m.Subject = "s" }),
			manifest("s", func(m *Manifest) { m.Subject = "m" })}}, manifests: []Name{{"a", "m"}, {"a", "s"}}},
		"old blob":                  {in: Input{Blobs: []Blob{{"b", old}}}, blobs: []ref.Digest{"b"}},
		"young blob":                {in: Input{Blobs: []Blob{{"b", young}}}},
		"blob of a manifest":        {in: Input{Blobs: []Blob{{"b", old}, {"m", old}}, Tags: []Name{{"a", "m"}}, Manifests: []Manifest{manifest("m", func(m *Manifest) { m.Blobs = []ref.Digest{"b"} })}}},
		"blob of a doomed manifest": {in: Input{Blobs: []Blob{{"b", old}}, Manifests: []Manifest{manifest("m", func(m *Manifest) { m.Blobs = []ref.Digest{"b"} })}}, manifests: []Name{{"a", "m"}}},
		"bytes of a used manifest":  {in: Input{Blobs: []Blob{{"m", old}}, InUse: []ref.Digest{"m"}}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.in.Now = now
			plan := Collect(tc.in)
			if !slices.Equal(plan.Manifests, tc.manifests) || !slices.Equal(plan.Blobs, tc.blobs) {
				t.Fatalf("%+v", plan)
			}
		})
	}
}

// TestRandomRegistries checks against a plain statement of the rules.
func TestRandomRegistries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digest := rapid.Custom(func(t *rapid.T) ref.Digest {
			return ref.Digest(fmt.Sprintf("d%02d", rapid.IntRange(0, 20).Draw(t, "digest")))
		})
		repo := rapid.SampledFrom([]string{"a", "b"})
		at := rapid.Custom(func(t *rapid.T) time.Time {
			return now.Add(-time.Duration(rapid.IntRange(0, 120).Draw(t, "age")) * time.Minute)
		})
		few := func(label string) []ref.Digest { return rapid.SliceOfN(digest, 0, 3).Draw(t, label) }
		in := Input{Now: now, InUse: few("in use")}
		seen := map[Name]bool{}
		for range rapid.IntRange(0, 15).Draw(t, "manifests") {
			m := Manifest{Repository: repo.Draw(t, "repo"), Digest: digest.Draw(t, "m"), Blobs: few("blobs"), Manifests: few("children"), PushedAt: at.Draw(t, "pushed")}
			if rapid.Bool().Draw(t, "refers") {
				m.Subject = digest.Draw(t, "subject")
			}
			if name := (Name{m.Repository, m.Digest}); !seen[name] {
				seen[name] = true
				in.Manifests = append(in.Manifests, m)
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "tags") {
			in.Tags = append(in.Tags, Name{repo.Draw(t, "repo"), digest.Draw(t, "tag")})
		}
		for i := range 21 {
			in.Blobs = append(in.Blobs, Blob{ref.Digest(fmt.Sprintf("d%02d", i)), at.Draw(t, "blob")})
		}
		check(t, in, Collect(in))
	})
}

func check(t *rapid.T, in Input, plan Plan) {
	limit := now.Add(-Grace)
	dead := func(m Manifest) bool { return slices.Contains(plan.Manifests, Name{m.Repository, m.Digest}) }
	for _, m := range in.Manifests {
		name := Name{m.Repository, m.Digest}
		reason := slices.Contains(in.Tags, name) || slices.Contains(in.InUse, m.Digest) || !m.PushedAt.Before(limit)
		for _, other := range in.Manifests {
			if other.Repository == m.Repository && !dead(other) && (slices.Contains(other.Manifests, m.Digest) || m.Subject == other.Digest) && other.Digest != m.Digest {
				reason = true
			}
		}
		if reason && dead(m) {
			t.Fatalf("%v has a reason to stay and is deleted: %+v", name, plan)
		}
		for _, d := range slices.Concat(m.Blobs, m.Manifests, []ref.Digest{m.Digest}) {
			if slices.Contains(plan.Blobs, d) {
				t.Fatalf("blob %s of manifest %v is deleted", d, name)
			}
		}
	}
	for _, b := range in.Blobs {
		deleted := slices.Contains(plan.Blobs, b.Digest)
		if deleted && (!b.Modified.Before(limit) || slices.Contains(in.InUse, b.Digest)) {
			t.Fatalf("young or used blob %s is deleted", b.Digest)
		}
	}
	// Nothing that ought to go stays: applying the plan and waiting leaves
	// only what the roots reach.
	in.Manifests = slices.DeleteFunc(slices.Clone(in.Manifests), dead)
	if again := Collect(in); len(again.Manifests) != 0 {
		t.Fatalf("a second pass finds more manifests: %+v", again)
	}
}

func BenchmarkCollect(b *testing.B) {
	in := Input{Now: now}
	for i := range 100_000 {
		d := ref.Digest(fmt.Sprint(i))
		in.Blobs = append(in.Blobs, Blob{d + "b", now.Add(-2 * Grace)})
		in.Manifests = append(in.Manifests, Manifest{Repository: "a", Digest: d, Blobs: []ref.Digest{d + "c"}})
	}
	for b.Loop() {
		Collect(in)
	}
}
