//go:build nextlevel

package state

import "appliance/node/model"

// Future is a row that only the next binary knows; tests of upgrades write it.
type Future struct {
	model.Meta
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Futures is the table of it.
var Futures = define[Future]("futures", func(f *Future) string { return f.Name })
