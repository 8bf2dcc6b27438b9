package docker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The engine sends the two streams of a container without terminal as frames:
// one byte of stream, three of zero, four of length (big endian), the bytes.
const (
	frameHeader = 8
	streamOut   = 1
	streamErr   = 2
	// maxFrame bounds what a broken engine can make us hold; real ones send
	// 16 KB and 32 KB.
	maxFrame = 4 << 20
)

// eachFrame calls f with each frame until the end of the stream. The bytes
// are valid during the call only.
func eachFrame(r io.Reader, f func(stream byte, data []byte) error) error {
	var head [frameHeader]byte
	var buf bytes.Buffer
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		size := binary.BigEndian.Uint32(head[4:])
		if head[0] > streamErr || size > maxFrame {
			return fmt.Errorf("read frame: stream %d of %d bytes: not Docker's format", head[0], size)
		}
		buf.Reset()
		if n, err := io.CopyN(&buf, r, int64(size)); err != nil {
			return fmt.Errorf("read frame: %d of %d bytes: %w", n, size, err)
		}
		if err := f(head[0], buf.Bytes()); err != nil {
			return err
		}
	}
}

// splitTime takes the time that the engine puts before each line.
func splitTime(line []byte) (time.Time, []byte) {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(stamp) > len("2006-01-02T15:04:05.999999999+07:00") {
		return time.Time{}, line
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}, line
	}
	return at, rest
}
