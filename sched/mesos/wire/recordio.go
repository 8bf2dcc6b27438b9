package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MaxRecord bounds one record; clients refuse more (mesos-go: 4 MiB).
const MaxRecord = 4 << 20

// maxLength is the longest length line: the digits of MaxRecord.
const maxLength = 7

// WriteRecord writes one record as one Write: some clients take every chunk
// of the HTTP stream for one record.
func WriteRecord(w io.Writer, payload []byte) error {
	if len(payload) == 0 || len(payload) > MaxRecord {
		return fmt.Errorf("a record of %d bytes cannot be sent", len(payload))
	}
	b := append(strconv.AppendInt(nil, int64(len(payload)), 10), '\n')
	_, err := w.Write(append(b, payload...))
	return err
}

// ReadRecord reads one record. It returns io.EOF only between records.
func ReadRecord(r *bufio.Reader) ([]byte, error) {
	n := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		if err != nil {
			if digits > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if c == '\n' && digits > 0 {
			break
		}
		if c < '0' || c > '9' || digits == maxLength {
			return nil, fmt.Errorf("record length: unexpected byte %q", c)
		}
		n = n*10 + int(c-'0')
	}
	if n == 0 || n > MaxRecord {
		return nil, fmt.Errorf("record length %d is not allowed", n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return payload, nil
}
