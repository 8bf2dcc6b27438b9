package doctor

import "time"

// Sample is what a node knows of itself and its cluster at one moment. Parts
// that are not known are zero and not judged.
type Sample struct {
	Now    time.Time
	Node   string // name
	Master bool

	Disk    Disk
	Log     Log
	Clock   Clock
	Files   Files
	Memory  Memory
	Certs   Certs
	Masters []Member
	Leader  string // name, empty if none is known
	// Contact is when a node that does not vote last heard a master; zero on
	// masters.
	Contact  time.Time
	Stale    bool // what the node knows may be old
	Conflict string
	Snapshot Snapshot
	Damaged  []Damage
	Version  string
	Nodes    []Member // all that have not left
	Parts    []Part   // that do not work
	Links    []Link   // broken ones
}

// Damage is a file that is not as it was written.
type Damage struct{ File, Why, Fix string }

// Disk is the file system of the data directory. Sizes are in bytes.
type Disk struct {
	Dir                    string
	Size, Free             uint64
	Inodes, InodesFree     uint64 // 0 inodes: the file system does not count them
	Reserve, ReserveWanted uint64
	ReserveErr             string
}

// Log is a master's log on disk.
type Log struct {
	// Slow is how long durable writes take now: the worst of the lately made
	// ones and the one in progress.
	Slow    time.Duration
	Failure string
	Unfit   []string // why this node should not lead
}

// Clock is this machine's clock against the others.
type Clock struct {
	Known        bool
	Ahead, Slack time.Duration // of the median of the others; how wrong that may be
	Step         time.Duration // the last jump of the wall clock
	SteppedAt    time.Time
}

// Files are file descriptors of the process.
type Files struct{ Open, Limit uint64 }

// Memory is in bytes. Limit is the control group's, 0 if there is none.
type Memory struct{ RSS, Limit, Total, Available uint64 }

// Certs are the lives of the certificates.
type Certs struct{ LeafFrom, LeafTo, CATo time.Time }

// Member is another node as seen from here.
type Member struct {
	Name    string
	Version string
	Alive   bool
	Since   time.Time // of Alive; zero if never met
	Down    bool      // the cluster has given it up
}

// Snapshot is the newest saved state of the cluster on this master's disk.
type Snapshot struct {
	Wanted  bool // this node keeps snapshots and has changes that none holds
	At      time.Time
	Started time.Time // of the node: a new one has had no time yet
	Every   time.Duration
}

// Part is a part of the node that does not work.
type Part struct{ Name, Why, Fix string }

// Link is a broken link between two nodes that are both there.
type Link struct {
	From, To string // names
	What     string
	Masters  bool // between two masters
	Beats    bool // only datagrams are missing: a node that has just started has met nobody yet
	Since    time.Time
}
