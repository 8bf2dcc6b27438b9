package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft/state"
)

const (
	// pathKeys is where a master hands private keys to other masters.
	pathKeys = "/rpc/trust/keys/"
	// pathTrust is where a master tells on a join connection which CAs count.
	pathTrust = "/trust"
	// maxKeyBody bounds an answer about keys.
	maxKeyBody = 64 << 10
)

// trustAnswer is which CAs count.
type trustAnswer struct {
	CAs []byte `json:"cas"` // PEM, the one that signs first
}

// mount registers what masters answer to others.
func (k *trustKeeper) mount(mux *http.ServeMux) {
	mux.Handle("GET "+pathKeys+"{id}", mastersOnly(http.HandlerFunc(k.serveKey)))
	mux.HandleFunc("GET "+pathGossip, k.serveGossip)
}

// member is the node behind a request, if the state still has it.
func (k *trustKeeper) member(r *http.Request) (*model.Node, error) {
	peer, ok := wire.PeerFrom(r.Context())
	if !ok || !peer.Known() {
		return nil, errors.New("only nodes of the cluster may ask")
	}
	n := state.Nodes.Get(k.store.Snapshot(), peer.ID)
	if n == nil || n.Status == model.NodeLeft || n.Role != peer.Role {
		return nil, fmt.Errorf("node %s is not of the cluster any more", peer.Name)
	}
	return n, nil
}

func (k *trustKeeper) serveKey(w http.ResponseWriter, r *http.Request) {
	n, err := k.member(r)
	if err != nil || n.Role != model.RoleMaster {
		http.Error(w, "only masters of the cluster may have keys", http.StatusForbidden)
		return
	}
	key, err := k.dir.Key(r.PathValue("id"))
	if err != nil {
		http.Error(w, "this master does not hold that key", http.StatusNotFound)
		return
	}
	k.log.Info("a master fetches a key", "master", n.Name, "key", r.PathValue("id"))
	_, _ = w.Write(key) // the caller is gone if this fails
}

// fetchKey gets a private key from another master and checks that it is it.
func (k *trustKeeper) fetchKey(ctx context.Context, want model.TrustKey) error {
	got := false
	err := k.askMasters(ctx, pathKeys+want.ID, func(raw []byte) error {
		if err := checkKey(want, raw); err != nil {
			return err
		}
		got = true
		return k.dir.SaveKey(want.ID, raw)
	}, func() bool { return got })
	if got {
		return nil
	}
	return errors.Join(fmt.Errorf("no master that answers has the key %.20s", want.ID), err)
}

func checkKey(want model.TrustKey, raw []byte) error {
	if want.Cert != nil {
		_, err := pki.LoadCA(want.Cert, raw)
		return err
	}
	var seal pki.SealKey
	if copy(seal[:], raw) != len(seal) || len(raw) != len(seal) || seal.ID() != want.ID {
		return errors.New("a master sent another key than was asked for")
	}
	return nil
}

// askMasters gives the answers of the other masters to take, until enough.
func (k *trustKeeper) askMasters(ctx context.Context, path string, take func([]byte) error, enough func() bool) error {
	var failed error
	for _, addr := range k.masters() {
		if addr == k.cfg.wireAddr() {
			continue
		}
		raw, err := k.get(ctx, "https://"+addr+path)
		if err == nil {
			err = take(raw)
		}
		if enough() {
			return nil
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("master %s: %w", addr, err))
		}
	}
	return failed
}

func (k *trustKeeper) get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, trustCall)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxKeyBody))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, raw)
	}
	return raw, err
}
