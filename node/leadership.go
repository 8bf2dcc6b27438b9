package node

// leadership is what watchdogs tell of this node's fitness to lead.
type leadership struct{ voter *voter } // nil on agents

// Unfit says that this node should not lead because of reason, or, with bad
// false, that this is over; see raft.Node.Unfit. On agents it does nothing.
func (l leadership) Unfit(reason string, bad bool) {
	if l.voter != nil {
		l.voter.Unfit(reason, bad)
	}
}
