package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"appliance/node/pki"
	"appliance/node/wire"
)

// staleAfter is how long a node is out of touch before it asks whether the
// CA was changed while it was away.
const staleAfter = 3 * time.Second

// catchUp asks a master which CAs count, if this node is out of touch: all
// that keeps it away may be that it has missed a rotation. The masters show a
// certificate of the CA that it knows as long as that is believed.
func (k *trustKeeper) catchUp(ctx context.Context) error {
	if k.fresh() {
		k.inTouch, k.away = time.Now(), nil
		return nil
	}
	if time.Since(k.inTouch) < staleAfter {
		return k.away
	}
	k.inTouch = time.Now() // ask again after as long
	var last error
	turned := false
	for _, addr := range k.masters() {
		if addr == k.cfg.wireAddr() {
			continue
		}
		try, cancel := context.WithTimeout(ctx, trustCall)
		var ans trustAnswer
		err := postJSON(try, k.joining, "https://"+addr+pathTrust, struct{}{}, &ans)
		cancel()
		if err != nil {
			last, turned = err, turned || turnedAway(err)
			continue
		}
		k.away = nil
		return k.learn(ans.CAs)
	}
	k.away = nil // they do not answer: others say so
	if errors.Is(last, wire.ErrRefused) {
		k.away = errMissed
	}
	if turned && k.away == nil {
		if k.ca != nil {
			return k.tryNextCA()
		}
		k.away = errTurnedAway
	}
	return k.away
}

// learn adds the CAs that a master has told to those that the node believes. None goes: that master's state may
// be an old one, too.
func (k *trustKeeper) learn(bundle []byte) error {
	all, err := pki.ParseBundle(bundle)
	if err != nil {
		return err
	}
	told := len(all)
	missing := func(ca *x509.Certificate) bool { return !slices.ContainsFunc(all[:told], ca.Equal) }
	known := k.keys.CAs()
	for _, ca := range known {
		if missing(ca) {
			all = append(all, ca)
		}
	}
	if len(all) == len(known) {
		return nil
	}
	k.log.Info("this node learns of CAs that the cluster has now", "believed", len(all))
	return k.take(pki.Bundle(all))
}

// turnedAway reports whether a master was reached and ended the connection: it does not believe this node's
// certificate.
func turnedAway(err error) bool {
	var alert *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &alert) && alert.Op == "remote error" // as crypto/tls says it
}

// tryNextCA gives a master whose certificate the others refuse one of the next CA that it believes. It was
// stopped in the middle of a rotation, and does not know how that has ended.
func (k *trustKeeper) tryNextCA() error {
	cas := k.keys.CAs()
	i := slices.IndexFunc(cas, k.keys.CA().Equal)
	next := cas[(i+1)%len(cas)]
	if next.Equal(k.keys.CA()) {
		k.away = errTurnedAway
		return k.away
	}
	chain, key, err := k.ca.own(pki.DigestOf(next).String(), k.cfg, time.Now().UTC())
	if err == nil {
		err = k.keys.Swap(chain, key, time.Now(), k.dir.SaveNode)
	}
	if err != nil {
		return fmt.Errorf("the others refuse the certificate of this master, and it cannot make one of another CA that it believes: %w", err)
	}
	k.log.Info("the others refuse the certificate of this master: it takes one of another CA that it believes", "ca", pki.DigestOf(next).String()[:12])
	return nil
}

// errMissed is what a node says that was away for a whole rotation.
var errMissed = errors.New("the masters have certificates of a CA that this node does not know; if the CA was rotated while it was away, join again: " +
	"appliance leave --accept-risk=lose-local-data, then appliance join with a new token")

// errTurnedAway is what a node says whose own certificate is of a CA that the masters have dropped.
var errTurnedAway = errors.New("the masters do not believe the certificate of this node; if the CA was rotated while it was away, join again: " +
	"appliance leave --accept-risk=lose-local-data, then appliance join with a new token")
