package raft

// Behind reports whether this master may fall behind the cluster, as far as it knows: it hears of no leader,
// or something is wrong with it (see Unfit), such as a disk that takes no entries. In between, as during an
// election, that is so for a moment everywhere.
func (n *Node) Behind() bool {
	_, leader := n.Leader()
	return leader == "" || len(n.fitness.list()) > 0
}
