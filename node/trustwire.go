package node

import (
	"context"
	"encoding/hex"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
)

// openTrust prepares what keeps this node's keys; it needs the log.
func (n *Node) openTrust() error {
	k := &trustKeeper{cfg: n.cfg, dir: n.cfg.pki(), keys: n.keys, store: n.store, proposer: n.proposer, masters: n.masters.list,
		client: n.dialer.Client(), joining: wire.JoinClient(nil, n.keys, nil), fresh: n.core.fresh, sync: n.core.Linearize, log: n.log,
		gossip: func(keys [][]byte) error { return n.gossip.SetKeys(keys) }}
	n.trust, n.secrets = k, &secrets{trust: k, sync: n.core.Linearize}
	if n.voter != nil {
		k.ca = &authority{dir: k.dir, keys: n.keys, trust: k.confirmed}
		if _, err := k.ca.issuer(); err != nil {
			return err
		}
		k.mount(n.rpc)
		n.rpc.HandleFunc("GET "+pathSecrets, n.secrets.serve)
		n.voter.OnLeadership(k.lead)
	}
	return k.openGossipKeys()
}

// current is what the state says of the keys, nil if nothing.
func (k *trustKeeper) current() *model.Trust {
	if c := clusterOf(k.store.Snapshot()); c != nil {
		return c.Trust
	}
	return nil
}

// confirmed is current, but nil while this node is out of touch: what it began with may be old.
func (k *trustKeeper) confirmed() *model.Trust {
	if !k.fresh() {
		return nil
	}
	return k.current()
}

// signer is the CA that new join tokens name: the one that stays.
func (k *trustKeeper) signer() pki.Digest {
	digest := pki.DigestOf(k.keys.CA())
	if t := k.current(); t != nil {
		if raw, err := hex.DecodeString(t.CA.Use()); err == nil && len(raw) == len(digest) {
			copy(digest[:], raw)
		}
	}
	return digest
}

func (n *Node) admission() *admission {
	return &admission{ca: n.trust.ca, gossip: n.trust.gossipKeys, store: n.store, proposer: n.proposer, sync: n.core.Linearize, masters: n.masters.list, generation: n.generation}
}

// signLeaf renews the node's own certificate: by itself on a master, by any
// master elsewhere. While the CA is rotated not every master may have the new
// one's key yet.
func (n *Node) signLeaf(ctx context.Context, csr []byte) ([]byte, error) {
	if n.trust.ca != nil {
		return n.trust.ca.sign(csr, n.cfg.ID, n.cfg.Name, n.cfg.Role, n.cfg.Advertise)
	}
	client := wire.JoinClient(nil, n.keys, nil)
	want := n.trust.signer()
	var chain []byte
	var last error
	for _, addr := range n.masters.list() {
		var ans renewAnswer
		if err := postJSON(ctx, client, "https://"+addr+"/renew", renewRequest{CSR: csr}, &ans); err != nil {
			last = err
			continue
		}
		chain = ans.Chain
		if certs, err := pki.ParseChain(chain); err == nil && len(certs) > 1 && pki.DigestOf(certs[1]) == want {
			break
		}
	}
	if chain != nil {
		last = nil
	}
	return chain, last
}
