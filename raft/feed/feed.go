// Package feed carries the applied log from masters to the nodes that do not vote.
//
// A master publishes every applied entry into a bounded ring and serves it as a stream over HTTP/2. A
// follower applies the stream to its own replica with the same pure code. A stream begins where the
// follower stands; if the master no longer has that entry, with a snapshot. Heartbeats tell how stale
// the follower is. Whoever is too slow loses its place in the ring and gets a snapshot; a master never
// waits.
package feed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"appliance/raft"
)

// Path is where masters serve the feed: GET Path?from=<index>&term=<term>[&snapshot=1], or with
// &look=1 for one heartbeat only.
const Path = "/rpc/feed"

const (
	heartbeat = 200 * time.Millisecond
	// silence is how long a follower waits for a frame before it asks another master.
	silence = time.Second
	// writeLimit ends a stream whose follower takes nothing.
	writeLimit = 5 * time.Second
	maxFrame   = raft.MaxPayload + 4096
	chunk      = 64 << 10 // bytes of a snapshot in one frame
)

// A frame is: length of the rest (4 bytes, big endian), kind, body. Numbers in bodies are 8 bytes, big
// endian.
const (
	kindSnapshot  = 'S' // index, term: data frames follow
	kindData      = 'D' // bytes of the snapshot
	kindEnd       = 'E' // CRC-32C of all data, 4 bytes
	kindEntry     = 'L' // previous index, index, term, data
	kindHeartbeat = 'H' // applied index, committed index of the master; a byte 1 if it is behind, which older ones do not say
)

var errFrame = errors.New("malformed frame in the feed")

// item is an entry in the ring or on the wire. prev is the index of the entry before it; indexes have
// holes where raft keeps entries for itself, so only prev proves that nothing is missing.
type item struct {
	prev uint64
	raft.Entry
}

func appendFrame(b []byte, kind byte, nums []uint64, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+8*len(nums)+len(data)))
	b = append(b, kind)
	for _, n := range nums {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, data...)
}

func appendItem(b []byte, it item) []byte {
	return appendFrame(b, kindEntry, []uint64{it.prev, it.Index, it.Term}, it.Data)
}

// frame is a decoded frame. nums are those of its kind; data is fresh memory.
type frame struct {
	kind byte
	nums [3]uint64
	data []byte
}

var numsOf = map[byte]int{kindSnapshot: 2, kindData: 0, kindEnd: 0, kindEntry: 3, kindHeartbeat: 2}

func readFrame(r io.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:4])
	n, known := numsOf[head[4]]
	if !known {
		return frame{}, fmt.Errorf("%w: kind %d: run a newer version on this node", errFrame, head[4])
	}
	if size > maxFrame || int(size) < 1+8*n {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	f := frame{kind: head[4]}
	var nums [24]byte
	if _, err := io.ReadFull(r, nums[:8*n]); err != nil {
		return frame{}, cut(err)
	}
	for i := range n {
		f.nums[i] = binary.BigEndian.Uint64(nums[8*i:])
	}
	if rest := int(size) - 1 - 8*n; rest > 0 {
		f.data = make([]byte, rest)
		if _, err := io.ReadFull(r, f.data); err != nil {
			return frame{}, cut(err)
		}
	}
	return f, nil
}

func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// behind tells of a heartbeat whether the master said that it may be behind the cluster.
func (f frame) behind() bool { return len(f.data) > 0 && f.data[0] == 1 }

func (f frame) item() item {
	return item{f.nums[0], raft.Entry{Index: f.nums[1], Term: f.nums[2], Data: f.data}}
}
