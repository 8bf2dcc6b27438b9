package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"appliance/node/model"
)

// Rows are decoded by several goroutines, a batch at a time, and stored by one in their order. The bounds
// keep what is between reading and storing small.
const (
	batchRows  = 256
	batchBytes = 256 << 10
)

// batch is some lines and what became of them.
type batch struct {
	text []byte
	ends []int // of each line in text
	rows []decoded
	err  error
	done chan struct{}
}

type decoded struct {
	table *definition
	row   any
}

// decode reads all rows with one decoder, which is half the cost of one for each. Fields that a row has not
// are an error: to drop them would make this node's state differ from the others'.
func (b *batch) decode() {
	defer close(b.done)
	rows, end := &bytes.Buffer{}, 0
	rows.Grow(len(b.text))
	dec := json.NewDecoder(rows)
	dec.DisallowUnknownFields()
	var want int64
	for _, next := range b.ends {
		d, raw, err := unwrap(b.text[end:next])
		if err != nil {
			b.err = err
			return
		}
		rows.Write(raw)
		row := d.newRow()
		if b.err = rowError(d, dec.Decode(row)); b.err != nil {
			return
		}
		if want += int64(len(raw)); dec.InputOffset() != want {
			b.err = fmt.Errorf("snapshot row of table %s has %d bytes too many", d.name, want-dec.InputOffset())
			return
		}
		b.rows = append(b.rows, decoded{d, row})
		end = next
	}
}

// unwrap takes the row out of a record. Records as Write writes them are not parsed twice.
func unwrap(line []byte) (*definition, []byte, error) {
	if bytes.HasSuffix(line, []byte{'}'}) {
		for _, d := range registered {
			if row, ok := bytes.CutPrefix(line, d.before); ok {
				return d, row[:len(row)-1], nil
			}
		}
	}
	var rec record
	if err := json.Unmarshal(line, &rec); err != nil {
		return nil, nil, fmt.Errorf("snapshot is damaged: %w", err)
	}
	d := tableNamed(rec.Table)
	if d == nil {
		return nil, nil, newerTable(rec.Table)
	}
	return d, rec.Row, nil
}

func rowError(d *definition, err error) error {
	if field, unknown := model.UnknownField(err); unknown {
		return &NewerError{What: fmt.Sprintf("a record of the table %q has a field %s that this version does not know", d.name, field)}
	}
	if err != nil {
		return fmt.Errorf("snapshot row of table %s: %w", d.name, err)
	}
	return nil
}

// restoreRows stores so many records of the stream.
func restoreRows(tx *Tx, lines *bufio.Scanner, rows int) error {
	workers := max(1, runtime.GOMAXPROCS(0))
	work, order := make(chan *batch), make(chan *batch, 2*workers)
	stop := make(chan struct{})
	defer func() { // also after an error: nobody is left behind
		close(stop)
		for b := range order {
			<-b.done
		}
	}()
	for range workers {
		go func() {
			for b := range work {
				b.decode()
			}
		}()
	}
	var readErr error
	go func() {
		defer close(order)
		defer close(work)
		readErr = readBatches(lines, rows, func(b *batch) bool {
			select {
			case <-stop:
				return false
			case order <- b:
			}
			work <- b
			return true
		})
	}()
	for b := range order {
		<-b.done
		if b.err != nil {
			return b.err
		}
		for _, r := range b.rows {
			if err := r.table.restore(tx, r.row); err != nil {
				return fmt.Errorf("snapshot row of table %s: %w", r.table.name, err)
			}
		}
	}
	return readErr
}

// readBatches cuts the stream into batches until it has so many rows, or hand returns false.
func readBatches(lines *bufio.Scanner, rows int, hand func(*batch) bool) error {
	for rows > 0 {
		b := &batch{done: make(chan struct{})}
		for rows > 0 && len(b.ends) < batchRows && len(b.text) < batchBytes {
			if !lines.Scan() {
				err := lines.Err()
				if err == nil {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("snapshot is cut short or damaged: %w", err)
			}
			b.text = append(b.text, lines.Bytes()...)
			b.ends = append(b.ends, len(b.text))
			rows--
		}
		if !hand(b) {
			return nil
		}
	}
	return nil
}
