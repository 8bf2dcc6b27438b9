package node

import (
	"context"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

// actorKey finds in a context on whose behalf a request is, as a function: it
// costs something and most requests change nothing.
type actorKey struct{}

// onBehalf makes the changes that h proposes for a request known as those of
// its sender. All handlers that users reach are behind it.
func (n *Node) onBehalf(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor := func() model.Actor {
			return model.Actor{Who: n.access.who(r), From: origin(r), Via: r.Method + " " + r.URL.Path}
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
	})
}

// actorOf returns on whose behalf ctx is, false if it is the node's own.
func actorOf(ctx context.Context) (model.Actor, bool) {
	actor, ok := ctx.Value(actorKey{}).(func() model.Actor)
	if !ok {
		return model.Actor{}, false
	}
	return actor(), true
}

// who names the sender of a request as access.API sees it.
func (a access) who(r *http.Request) string {
	if r.Context().Value(rootKey{}) != nil {
		return "root"
	}
	if secret := credential(r); secret != "" {
		if t := a.token(secret, time.Now()); t != nil {
			return "token " + t.ID + " (" + t.Name + ")"
		}
	}
	if loopback(r) {
		return "loopback"
	}
	return "anonymous"
}

func origin(r *http.Request) string {
	if r.Context().Value(rootKey{}) != nil {
		return "unix socket"
	}
	return r.RemoteAddr
}

// auditor is a Proposer that has the changes of users recorded with the
// change itself.
type auditor struct {
	next command.Proposer
	node string // id
}

// Propose implements command.Proposer.
func (a auditor) Propose(ctx context.Context, c command.Command) (command.Result, error) {
	if actor, ok := actorOf(ctx); ok && recorded(c) {
		actor.Node = a.node
		c = command.Audit(c, actor, time.Now().UTC())
	}
	return a.next.Propose(ctx, c)
}

// recorded leaves out what decides nothing and would drown the rest: signs of
// life that clients send every few seconds, and the pieces of a restore.
func recorded(c command.Command) bool {
	switch c.(type) {
	case *command.RenewSession, *command.UpdateCheck, *command.AckStatus, *command.StageRestore, *command.Checkpoint:
		return false
	}
	return true
}

// Headers by which a master tells the leader for whom it passes a call on.
const (
	headerWho  = "X-Appliance-Who"
	headerFrom = "X-Appliance-From"
)

// passOn names the actor of ctx in the headers of a request between masters.
func passOn(ctx context.Context, h http.Header) {
	h.Del(headerWho)
	h.Del(headerFrom)
	if actor, ok := actorOf(ctx); ok {
		h.Set(headerWho, actor.Who)
		h.Set(headerFrom, actor.From)
	}
}

// passedOn is onBehalf for calls that another master passes on; only masters
// reach h.
func passedOn(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor := func() model.Actor {
			return model.Actor{Who: r.Header.Get(headerWho), From: r.Header.Get(headerFrom), Via: r.Method + " " + r.URL.Path}
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
	})
}
