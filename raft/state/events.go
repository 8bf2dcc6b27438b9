package state

import "fmt"

// EventPrefix is the id prefix of the events of one log entry.
func EventPrefix(index uint64) string { return fmt.Sprintf("%020d.", index) }

// eventCount counts without a scan: the index row of a pseudo table keeps it.
const eventCount = "events/count"

// TrimEvents notes that one event was added and drops the oldest beyond keep.
func TrimEvents(tx *Tx, index uint64, keep uint64) {
	n := tx.TableIndex(eventCount) + 1
	for ; n > keep; n-- {
		for e := range Events.All(&tx.Snapshot) {
			Events.Delete(tx, index, fmt.Sprintf("%020d.%04d", e.Seq, e.N))
			break
		}
	}
	tx.putIndex(eventCount, n)
}
