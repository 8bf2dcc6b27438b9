// Package model is the vocabulary of the cluster: the records that the
// replicated state holds and the words that every other package speaks.
//
// It imports the standard library only. Records are plain data; a record that
// has been stored is never changed in place, a new copy replaces it. The
// comment beside a field says who writes it where that is not obvious.
package model
