package gc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"appliance/node/replay"
	"appliance/registry/ref"
)

// Manifests are pushed, tagged and used at random; the plan is carried out.
func TestCollectReplaysExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		digest := func() ref.Digest { return ref.FromBytes(fmt.Append(nil, r.IntN(40))) }
		some := func() (out []ref.Digest) {
			for range r.IntN(4) {
				out = append(out, digest())
			}
			return out
		}
		in := Input{Now: time.Unix(1e9, 0), Grace: time.Minute}
		for range 200 {
			in.Now = in.Now.Add(time.Duration(r.IntN(30)) * time.Second)
			in.Manifests = append(in.Manifests, Manifest{Repository: replay.One(r, "a", "b"), Digest: digest(), Blobs: some(), Manifests: some(), PushedAt: in.Now})
			in.Blobs = append(in.Blobs, Blob{Digest: digest(), Modified: in.Now})
			in.Tags, in.InUse = nil, some()
			for _, m := range in.Manifests {
				if r.IntN(3) == 0 {
					in.Tags = append(in.Tags, Name{m.Repository, m.Digest})
				}
			}
			plan := Collect(in)
			say(plan)
			in.Manifests = slices.DeleteFunc(in.Manifests, func(m Manifest) bool { return slices.Contains(plan.Manifests, Name{m.Repository, m.Digest}) })
			in.Blobs = slices.DeleteFunc(in.Blobs, func(b Blob) bool { return slices.Contains(plan.Blobs, b.Digest) })
		}
	})
}
