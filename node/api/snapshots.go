package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/command"
)

// What a restore has to be told that it accepts, one of both.
const (
	RiskReplaceState = command.RiskReplaceState
	RiskOtherCluster = command.RiskOtherCluster
)

// snapshotTimeout bounds a save or a restore; 64 MiB through the log of slow
// disks take half of it.
const snapshotTimeout = 2 * time.Minute

func (s *Server) snapshotRoutes() {
	s.raw("GET", "/snapshot", operator, s.saveSnapshot) // a snapshot has all secrets
	s.operateRaw("POST", "/snapshot/restore", s.restoreSnapshot)
}

// saveSnapshot streams a snapshot file that has everything that was
// acknowledged before the request. Whoever reads it verifies its checksum: an
// error on the way cuts it short.
func (s *Server) saveSnapshot(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout)
	defer cancel()
	if err := s.Cluster.Sync(ctx); err != nil {
		return err
	}
	h := archive.Header{Time: time.Now().UTC(), Version: s.Version}
	if s.Term != nil {
		h.Term = s.Term()
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return archive.Write(w, s.Store.Snapshot(), h)
}

// restoreSnapshot replaces the state by the snapshot file in the body.
func (s *Server) restoreSnapshot(w http.ResponseWriter, r *http.Request) error {
	risk := r.URL.Query().Get("accept-risk")
	if risk != RiskReplaceState && risk != RiskOtherCluster {
		return model.Errorf(model.CodeInvalid, "a restore replaces what the cluster runs and knows").
			Because("all changes since the snapshot are lost").Try("if that is meant: --accept-risk=%s", RiskReplaceState)
	}
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, command.MaxRestore))
	if err != nil {
		return model.Errorf(model.CodeInvalid, "the snapshot was not received").Because("%v", err).
			Try("a snapshot may have %d bytes; nothing was changed", command.MaxRestore)
	}
	ctx, cancel := context.WithTimeout(r.Context(), snapshotTimeout)
	defer cancel()
	if err := s.Cluster.Sync(ctx); err != nil {
		return err
	}
	// Every node checks it again; here the log is not bothered with a bad one.
	if _, _, err := command.LoadArchive(s.Store.Snapshot(), bytes.NewReader(file), int64(len(file)), risk == RiskOtherCluster); err != nil {
		return err
	}
	id := strings.ToLower(rand.Text()[:12])
	for n := 0; n*command.ChunkSize < len(file); n++ {
		part := file[n*command.ChunkSize : min(len(file), (n+1)*command.ChunkSize)]
		if _, err := command.Do(ctx, s.Proposer, &command.StageRestore{ID: id, N: n, Data: part}); err != nil {
			s.dropRestore(ctx, id)
			return err
		}
	}
	res, err := command.Do(ctx, s.Proposer, &command.EndRestore{ID: id, Commit: true, At: time.Now().UTC(), Foreign: risk == RiskOtherCluster})
	if err != nil {
		s.dropRestore(ctx, id)
		return err
	}
	var out RestoredSnapshot
	if err := res.Decode(&out); err != nil {
		return err
	}
	out.Index = res.Index
	s.Log.Info("the state was replaced by a snapshot", "index", out.Index, "snapshot", out.Header.Index, "time", out.Header.Time)
	return answer(w, http.StatusOK, out)
}

// RestoredSnapshot is the answer of POST /snapshot/restore.
type RestoredSnapshot struct {
	command.Restored
	Index uint64 `json:"index"` // log index at which all nodes have the restored state
}

// dropRestore frees what was staged. If that fails too, the next restore does.
func (s *Server) dropRestore(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if _, err := command.Do(ctx, s.Proposer, &command.EndRestore{ID: id, At: time.Now().UTC()}); err != nil {
		s.Log.Warn("pieces of a failed restore stay in the state until the next one", "err", err)
	}
}
