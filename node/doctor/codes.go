package doctor

// The codes. Titles are what other nodes say of a finding, of which only the
// code has reached them.
const (
	DiskSpace   Code = 1
	DiskInodes  Code = 2
	DiskReserve Code = 3
	DiskWrites  Code = 4

	ClockOffset Code = 10
	ClockStep   Code = 11

	OpenFiles     Code = 20
	OwnMemory     Code = 21
	MachineMemory Code = 22

	LeafCert Code = 30
	CACert   Code = 31

	Tolerance   Code = 40
	MastersAway Code = 41
	StaleState  Code = 42
	IDConflict  Code = 43

	OldSnapshot Code = 50
	DamagedFile Code = 51

	OtherVersion Code = 60
	PartDown     Code = 61

	BrokenLink Code = 70
	SilentNode Code = 71
	NoAnswer   Code = 72

	Diverged Code = 80
)

var titles = map[Code]string{
	DiskSpace: "the disk is almost full", DiskInodes: "the disk has few inodes left", DiskReserve: "the reserve file is gone",
	DiskWrites: "the log's disk fails or is slow", ClockOffset: "the clock is off", ClockStep: "the clock jumped",
	OpenFiles: "few file descriptors are left", OwnMemory: "the node uses much memory", MachineMemory: "the machine is short of memory",
	LeafCert: "the node's certificate is not renewed", CACert: "the cluster's CA runs out", Tolerance: "no master may be lost",
	MastersAway: "the masters do not answer", StaleState: "the node is out of touch with the masters", IDConflict: "two nodes use one identity",
	OldSnapshot: "there is no recent snapshot", DamagedFile: "a file is damaged", OtherVersion: "nodes run different versions", PartDown: "a part of the node does not work",
	BrokenLink: "a link between nodes is broken", SilentNode: "a node is silent", NoAnswer: "a node does not answer the doctor",
	Diverged: "a node's state differs from the others'",
}

// Title is a code in a few words.
func (c Code) Title() string {
	if t := titles[c]; t != "" {
		return t
	}
	return "something that only a newer version can name"
}

// Checks lists what the doctor looks at, for people.
var Checks = []string{"disk", "inodes", "log writes", "clock", "file descriptors", "memory", "certificates", "masters", "state",
	"snapshots", "files", "versions", "parts", "links", "nodes", "state hashes"}
