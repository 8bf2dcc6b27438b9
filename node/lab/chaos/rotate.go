package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"appliance/node/api"
	"appliance/node/model"
)

const keysRule = "a rotation of keys ends, and no secret is lost"

// chaosSecret is sealed anew by the rotations.
const chaosSecret = `{"name":"chaos","value":"c2VjcmV0"}`

// rotate begins to replace the CA, the key of gossip and that of secrets, and
// remembers the keys that have to go.
func (r *run) rotate(ctx context.Context) (Active, error) {
	n := r.anyMaster()
	if _, _, err := n.do(ctx, http.MethodPost, api.Prefix+"/secrets", chaosSecret); err != nil {
		return Active{}, err
	}
	for _, ring := range model.RingNames {
		trust, err := get[api.Trust](ctx, n, api.Prefix+"/trust")
		if err != nil {
			return Active{}, err
		}
		view := trust.Rings[slices.IndexFunc(trust.Rings, func(v api.RingView) bool { return v.Name == ring })]
		if view.Phase != "" {
			return Active{}, fmt.Errorf("a rotation of %s is under way", ring)
		}
		body, err := json.Marshal(api.TrustRequest{Ring: ring, Step: "begin"})
		if err == nil {
			_, _, err = n.do(ctx, http.MethodPost, api.Prefix+"/trust", string(body))
		}
		if err != nil {
			return Active{}, err
		}
		for _, k := range view.Keys {
			r.oldKeys = append(r.oldKeys, k.ID)
		}
	}
	return Active{Title: "rotate all keys"}, nil
}

// rotated waits until what rotate began has ended.
func (r *run) rotated(ctx context.Context) {
	if len(r.oldKeys) == 0 {
		return
	}
	r.wrong.check(keysRule, 1)
	err := again(ctx, settleTime, func(ctx context.Context) error {
		trust, err := get[api.Trust](ctx, r.anyMaster(), api.Prefix+"/trust")
		for _, v := range trust.Rings {
			switch {
			case v.Phase != "":
				return fmt.Errorf("the rotation of %s is at %s: %+v", v.Name, v.Phase, v.Lacks)
			case len(v.Lost) > 0 || v.Name == model.RingSeal && v.Secrets == 0:
				return fmt.Errorf("%d secrets can be read, %v are lost", v.Secrets, v.Lost)
			}
			for _, k := range v.Keys {
				if k.Use == "active" && slices.Contains(r.oldKeys, k.ID) {
					return fmt.Errorf("%s still uses %s", v.Name, k.ID)
				}
			}
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		r.wrong.violate(keysRule, "%v", err)
	}
	r.oldKeys = nil
}

// anyMaster is a master's API, another one each time.
func (r *run) anyMaster() *node {
	masters := r.cluster.Masters()
	name := masters[r.rand.IntN(len(masters))].Name
	return r.load.nodes[slices.IndexFunc(r.load.nodes, func(n *node) bool { return n.name == name })]
}
