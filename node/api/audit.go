package api

import (
	"net/http"
	"slices"
	"strconv"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// AuditLog is the answer of GET /audit: the newest records, oldest first.
type AuditLog struct {
	Bound   int                 `json:"bound"` // how many the cluster keeps in its state
	Records []model.AuditRecord `json:"records"`
}

// audit answers with all records, or the newest ?limit.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit <= 0 {
		limit = command.MaxAudit
	}
	snap := s.Store.Snapshot()
	out := AuditLog{Bound: command.MaxAudit, Records: []model.AuditRecord{}}
	last := state.Audit.Last(snap)
	for n := 0; last != nil && n < limit; n++ {
		row := state.Audit.Get(snap, model.AuditKey(last.Seq-uint64(n)))
		if row == nil {
			break
		}
		out.Records = append(out.Records, *row)
	}
	slices.Reverse(out.Records)
	return answer(w, http.StatusOK, out)
}
