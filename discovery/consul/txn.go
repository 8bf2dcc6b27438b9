package consul

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
)

type txnOp struct {
	KV *struct {
		Verb    string
		Key     string
		Value   []byte
		Flags   uint64
		Index   uint64
		Session string
	}
	Node, Service, Check, Session json.RawMessage
}

type txnResult struct{ KV kvJSON }

type txnAnswer struct {
	Results []txnResult
	Errors  []command.KVTxnError
}

// txn applies KV operations together. Operations on nodes, services and checks
// are refused: most of the catalog is derived and cannot be written.
func (s *Server) txn(w http.ResponseWriter, r *http.Request) error {
	raw, err := readBody(r, maxTxnBody)
	if err != nil {
		return err
	}
	var ops []txnOp
	if err := json.Unmarshal(raw, &ops); err != nil {
		return fail(http.StatusBadRequest, "Failed to parse body: "+err.Error())
	}
	if len(ops) > maxTxnOps {
		return fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("Transaction contains too many operations (%d > %d)", len(ops), maxTxnOps))
	}
	t := &command.KVTxn{At: time.Now()}
	for i, op := range ops {
		if op.KV == nil {
			return fail(http.StatusBadRequest, fmt.Sprintf("Operation %d is not of type KV: register services and checks through /v1/agent or /v1/catalog", i))
		}
		if len(op.KV.Value) > maxValue {
			return fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("Value for key %q is too large (%d > %d bytes)", op.KV.Key, len(op.KV.Value), maxValue))
		}
		t.Ops = append(t.Ops, command.KVOp{Verb: op.KV.Verb, Key: op.KV.Key, Value: op.KV.Value, Flags: op.KV.Flags, Index: op.KV.Index, Session: op.KV.Session})
	}
	out, err := s.runTxn(w, r, t)
	if err != nil {
		return err
	}
	if len(out.Errors) > 0 {
		body, err := encode(txnAnswer{Errors: out.Errors})
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		s.write(w, r, http.StatusConflict, body)
		return nil
	}
	answer := txnAnswer{Results: []txnResult{}}
	for i := range out.Results {
		answer.Results = append(answer.Results, txnResult{kvOf((*model.KV)(&out.Results[i]))})
	}
	return s.respond(w, r, answer)
}

// runTxn reads locally, with the consistency that was asked for, if nothing is
// written.
func (s *Server) runTxn(w http.ResponseWriter, r *http.Request, t *command.KVTxn) (out command.KVTxnResult, err error) {
	if !t.ReadOnly() {
		res, err := s.propose(r.Context(), t)
		if err != nil {
			return out, err
		}
		return out, res.Decode(&out)
	}
	o, err := readOptions(r)
	if err != nil {
		return out, err
	}
	if err := s.consistent(r.Context(), o.mode); err != nil {
		return out, err
	}
	snap := s.cfg.Store.Snapshot()
	s.metaHeaders(w, snap.Index(), o.mode)
	return t.Read(snap), nil
}
