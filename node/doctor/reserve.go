package doctor

// A reserve file takes room on the data directory's disk while there is
// plenty. When something else has filled the disk it goes, and the node has
// room to write its log, hand over what it leads, and stop in order. It holds
// zeros.

const (
	// reserveMost is one segment of the log.
	reserveMost = 64 * mib
	// reserveShare bounds it on small disks.
	reserveShare = 100
	// giveUpAt is when the reserve goes: a few seconds of a busy log.
	giveUpAt = 16 * mib
	// remakeAbove is what must stay free beside a new reserve, so that it does
	// not come and go.
	remakeAbove = 256 * mib
)

// ReserveWanted is the size of the reserve on a disk of that size.
func ReserveWanted(size uint64) uint64 { return min(reserveMost, size/reserveShare) }

// ReserveStep is what is to be done about the reserve.
type ReserveStep int

const (
	ReserveKeep ReserveStep = iota
	ReserveGiveUp
	ReserveMake
)

// Reserve decides from the free space, the present reserve and the wanted one,
// all in bytes.
func Reserve(free, have, want uint64) ReserveStep {
	switch {
	case have > 0 && free < giveUpAt:
		return ReserveGiveUp
	case have < want && free > want-have+max(min(remakeAbove, 4*want), 2*giveUpAt):
		return ReserveMake
	}
	return ReserveKeep
}
