package model

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Meta is what the state adds to every record. Indexes are log indexes.
type Meta struct {
	CreateIndex uint64 `json:"createIndex,omitempty"`
	ModifyIndex uint64 `json:"modifyIndex,omitempty"`
}

// Record lets the state stamp the indexes of any record.
func (m *Meta) Record() *Meta { return m }

// Duration is a time.Duration that reads and writes as "10s" in JSON and also
// accepts a number of seconds, because the Marathon dialect counts in them.
type Duration time.Duration

// D returns the plain duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the Go form, such as "1m30s".
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

// UnmarshalJSON reads "1m30s" or a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '"' {
		secs, err := strconv.ParseFloat(string(b), 64)
		if err != nil {
			return fmt.Errorf("duration %s: write it as \"10s\" or a number of seconds", b)
		}
		*d = Duration(secs * float64(time.Second))
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration %q: write it as \"10s\", \"1m30s\" or a number of seconds", s)
	}
	*d = Duration(v)
	return nil
}
