package raft

// SetBeforeWrite makes every write of a log call fn with its directory first. Set it before Open.
func SetBeforeWrite(fn func(dir string)) { beforeWrite = fn }
