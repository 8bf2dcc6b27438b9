package raft

import (
	"errors"
	"io"
	"slices"

	hraft "github.com/hashicorp/raft"
)

// receiver stands between the network and raft, and gives raft the requests that it would treat wrongly
// in a form that it treats well. What the masters have applied is equal on all of them and is never
// undone; hashicorp/raft 1.7.3 forgets that in three places, and one rule is its own:
//   - A snapshot that comes late, of the same term, replaces newer entries, which this master has
//     acknowledged. Here it is answered as installed: all of it is.
//   - An append that begins before the first entry of the log is refused, also where a snapshot covers
//     what is missing. The leader would send an older snapshot then, again and again.
//   - An append says what is committed; raft takes that to be true of all of its own log, also beyond the
//     entries that the append has compared.
//   - A vote is asked for by a master that does not vote by the log that is here: raft refuses. But if the
//     asking one has more of the log, that may have made it a voter, and with the leader gone for ever nobody
//     could tell. The paper has no such rule (section 6): what counts is whose log is newer.
type receiver struct {
	raft interface {
		AppliedIndex() uint64
		LastIndex() uint64
		GetConfiguration() hraft.ConfigurationFuture
	}
	log  hraft.LogStore
	self hraft.ServerID
}

// errInstalled ends the transfer of a snapshot that is not needed.
var errInstalled = errors.New("the entries of this snapshot are in the log or applied")

// receive hands requests to raft until the transport is closed.
func (t *transport) receive(r receiver) {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			switch req := rpc.Command.(type) {
			case *hraft.AppendEntriesRequest:
				r.trim(req)
			case *hraft.InstallSnapshotRequest:
				rpc = t.judge(rpc, req, r)
			case *hraft.RequestVoteRequest:
				r.introduce(&req.RPCHeader, req.LastLogIndex)
			case *hraft.RequestPreVoteRequest:
				r.introduce(&req.RPCHeader, req.LastLogIndex)
			}
			select {
			case t.requests <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

// trim takes out of an append what is applied here, where the log cannot be compared with it any more,
// and limits the commit index to what the append covers (Raft paper, figure 2).
func (r receiver) trim(req *hraft.AppendEntriesRequest) {
	end := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		end = req.Entries[n-1].Index
	}
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, end)
	applied := r.raft.AppliedIndex()
	if req.PrevLogEntry == 0 || req.PrevLogEntry >= applied {
		return
	}
	if first, err := r.log.FirstIndex(); err != nil || first != 0 && first <= req.PrevLogEntry {
		return
	}
	req.PrevLogEntry, req.PrevLogTerm = 0, 0 // what comes next follows what is applied: there is nothing to compare
	for len(req.Entries) > 0 && req.Entries[0].Index <= applied {
		req.Entries = req.Entries[1:]
	}
}

// introduce has raft judge a candidate by its log alone, if that goes further than the log here: raft looks
// only at whether the id is that of a voter, and gets our own. Who asks is known by its certificate.
func (r receiver) introduce(h *hraft.RPCHeader, last uint64) {
	if last <= r.raft.LastIndex() {
		return
	}
	votes := func(id hraft.ServerID) bool {
		return slices.ContainsFunc(r.raft.GetConfiguration().Configuration().Servers, func(s hraft.Server) bool {
			return s.ID == id && s.Suffrage == hraft.Voter
		})
	}
	if !votes(hraft.ServerID(h.ID)) && votes(r.self) {
		h.ID = []byte(r.self)
	}
}

// judge lets raft find out that a snapshot is not needed at the moment when it would begin to store it: the
// requests before it are done then, and its term is not an old one.
func (t *transport) judge(rpc hraft.RPC, req *hraft.InstallSnapshotRequest, r receiver) hraft.RPC {
	answer, from := rpc.RespChan, make(chan hraft.RPCResponse, 1)
	rpc.Reader, rpc.RespChan = &judged{Reader: rpc.Reader, known: func() bool { return r.known(req) }}, from
	t.wg.Go(func() {
		select {
		case a := <-from:
			if resp, ok := a.Response.(*hraft.InstallSnapshotResponse); ok && errors.Is(a.Error, errInstalled) {
				resp.Success, a.Error = true, nil
			}
			answer <- a // has room
		case <-t.done:
		}
	})
	return rpc
}

// known reports whether this master has all that a snapshot has, so that its answer may say so.
func (r receiver) known(req *hraft.InstallSnapshotRequest) bool {
	if req.LastLogIndex <= r.raft.AppliedIndex() {
		return true
	}
	var last hraft.Log
	return r.log.GetLog(req.LastLogIndex, &last) == nil && last.Term == req.LastLogTerm
}

// judged fails once, before it reads anything, if known is true. Raft empties it in any case.
type judged struct {
	io.Reader
	known func() bool
}

func (j *judged) Read(b []byte) (int, error) {
	if ask := j.known; ask != nil {
		if j.known = nil; ask() {
			return 0, errInstalled
		}
	}
	return j.Reader.Read(b)
}
