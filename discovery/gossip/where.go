package gossip

// Where is the IP address at which a node answers, "" if it does not.
func (g *Gossip) Where(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[id]; m.Alive {
		return m.Addr
	}
	return ""
}
