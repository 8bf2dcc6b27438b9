package node

import (
	"context"
	"strings"
	"time"

	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

const (
	eventDoctor = "doctor"
	// errorsEvery is how often the leader looks at what the nodes have told.
	errorsEvery = 2 * time.Second
	// maxErrorEvents bounds the lines of one look: a cluster that breaks as a
	// whole must not push its own history out.
	maxErrorEvents = 20
	// overPrefix marks the line that ends a trouble.
	overPrefix = "over: "
)

// recordErrors notes in the log when a finding of severity error begins and
// ends, on any node. Only the leader does; what earlier leaders noted is known
// from their lines.
func (n *Node) recordErrors(ctx context.Context) {
	known := openErrors(n.store.Snapshot())
	for ctx.Err() == nil {
		pause(ctx, errorsEvery)
		now, silent := n.errorsNow()
		budget := maxErrorEvents
		for k, text := range now {
			if _, had := known[k]; !had && budget > 0 && n.recordError(ctx, k, text) {
				known[k] = text
				budget--
			}
		}
		for k, text := range known {
			if _, still := now[k]; !still && !silent(k.subject) && budget > 0 && n.recordError(ctx, k, overPrefix+text) {
				delete(known, k)
				budget--
			}
		}
	}
}

// trouble names a finding in the history.
type trouble struct{ subject, code string }

// errorsNow are the errors that the leader knows of. silent tells the nodes
// whose word is old: what they said last still counts.
func (n *Node) errorsNow() (now map[trouble]string, silent func(node string) bool) {
	now = map[trouble]string{}
	for _, f := range (apiCluster{n}).Findings() {
		if f.Severity != doctor.Error {
			continue
		}
		k := trouble{f.Node, f.Code.String()}
		if f.Node == "" {
			k.subject = f.Subject
		}
		now[k] = f.What
	}
	told := map[string]bool{n.cfg.Name: true}
	snap := n.store.Snapshot()
	for _, r := range n.gossip.Rows() {
		if node := state.Nodes.Get(snap, r.From); node != nil {
			told[node.Name] = true
		}
	}
	return now, func(node string) bool {
		for range state.Nodes.By(snap, "name", node) {
			return !told[node]
		}
		return false
	}
}

func (n *Node) recordError(ctx context.Context, k trouble, text string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	e := model.Event{At: time.Now().UTC(), Kind: eventDoctor, Subject: k.subject, Text: text, Fields: map[string]string{"code": k.code}}
	_, err := command.Do(ctx, n.proposer, &command.RecordEvent{Event: e})
	return err == nil // else it is tried again at the next look
}

// openErrors reads from the history which errors have begun and not ended.
func openErrors(snap *state.Snapshot) map[trouble]string {
	out := map[trouble]string{}
	for e := range state.Events.All(snap) {
		if e.Kind != eventDoctor {
			continue
		}
		k := trouble{e.Subject, e.Fields["code"]}
		if strings.HasPrefix(e.Text, overPrefix) {
			delete(out, k)
		} else {
			out[k] = e.Text
		}
	}
	return out
}
