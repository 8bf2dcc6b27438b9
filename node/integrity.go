package node

import (
	"errors"

	"appliance/node/model"
	"appliance/raft"
)

// Directories below the data directory: second copies of small files, and what was found damaged.
const (
	witnessDir = "witness"
	damagedDir = "damaged"
)

// Directories below the data directory that others are told of: what a master saves now and then, and what
// an agent has of the state.
const (
	snapshotDir = "snapshots"
	feedDir     = "feed"
)

// damaged says what to do about files that are not what they were.
func damaged(err error) error {
	var de *raft.DamageError
	if !errors.As(err, &de) {
		return err
	}
	return model.Errorf(model.CodeInternal, "%s is damaged", de.Files[0].File).Because("%v; this master does not vote with it", err).
		Try("if the other masters have a majority, run appliance recover --resync: it takes everything anew from them and keeps the damaged files; "+
			"if one of them is intact and alone, run appliance recover there first; %s", aloneFix(DefaultData))
}
