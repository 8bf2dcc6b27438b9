//go:build !embedrunc

package runc

var compressed []byte
