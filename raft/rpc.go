package raft

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"appliance/node/pki"
	"appliance/node/wire"
)

// Authorize decides whether peer may propose payload. The error text reaches the proposer.
type Authorize func(peer wire.Peer, payload []byte) error

// Paths of the internal RPC. Bodies of propose are lists; see appendRequest and appendReply.
const (
	pathPropose   = "/rpc/raft/propose"
	pathReadIndex = "/rpc/raft/readindex"
	pathLeader    = "/rpc/raft/leader"
	pathStatus    = "/rpc/raft/status"
	pathMember    = "/rpc/raft/member"

	// headerLeader carries the leader's address, so that an agent asks it directly next time.
	headerLeader = "Appliance-Leader"

	maxBatch      = 256     // proposals in one request
	maxBatchBytes = 4 << 20 // bytes in one request, beyond the first proposal
	maxBody       = maxBatchBytes + MaxPayload + 64<<10
)

// Mount registers the RPC handlers of a master. They answer peers authenticated by package wire only.
func (n *Node) Mount(mux *http.ServeMux) {
	mux.HandleFunc("POST "+pathPropose, n.peerOnly(n.servePropose))
	mux.HandleFunc("POST "+pathReadIndex, n.peerOnly(n.serveReadIndex))
	mux.HandleFunc("GET "+pathLeader, n.peerOnly(n.serveLeader))
	mux.HandleFunc("GET "+pathStatus, n.peerOnly(n.serveStatus))
	mux.HandleFunc("POST "+pathMember, n.peerOnly(n.serveMember))
}

type peerHandler func(w http.ResponseWriter, r *http.Request, peer wire.Peer)

func (n *Node) peerOnly(h peerHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, ok := wire.PeerFrom(r.Context())
		if !ok || !peer.Known() || peer.Expired {
			http.Error(w, "only nodes of this cluster may call this", http.StatusForbidden)
			return
		}
		if _, addr := n.Leader(); addr != "" {
			w.Header().Set(headerLeader, addr)
		}
		h(w, r, peer)
	}
}

// A master never passes a request of another master on: the other one knows the leader as well, and
// requests must not travel in circles. Agents may not reach the leader, so theirs are passed on.
func mayForward(peer wire.Peer) bool { return peer.Role == pki.Agent }

func (n *Node) servePropose(w http.ResponseWriter, r *http.Request, peer wire.Peer) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	envs, err := parseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	replies := make([]reply, len(envs))
	var wg sync.WaitGroup
	for i, env := range envs {
		wg.Go(func() { replies[i] = n.serveOne(r.Context(), env, peer) })
	}
	wg.Wait()
	var out []byte
	for _, rep := range replies {
		out = appendReply(out, rep)
	}
	w.Write(out)
}

func (n *Node) serveOne(ctx context.Context, env envelope, peer wire.Peer) reply {
	if n.conf.Authorize != nil {
		if err := n.conf.Authorize(peer, env.payload()); err != nil {
			return reply{status: replyDenied, body: []byte(err.Error())}
		}
	}
	o, err := n.attempt(ctx, env, mayForward(peer))
	var again errRetry
	switch {
	case errors.As(err, &again) && again.unsure:
		return reply{status: replyUnsure, body: []byte(err.Error())}
	case errors.As(err, &again):
		return reply{status: replyRetry, body: []byte(err.Error())}
	case err != nil:
		return reply{status: replyFailed, body: []byte(err.Error())}
	}
	value, err := codecOf(n.replica.sm).EncodeResult(o.Value)
	if err != nil {
		return reply{status: replyFailed, body: []byte(err.Error())}
	}
	return reply{status: replyDone, index: o.Index, body: value}
}

func (n *Node) serveReadIndex(w http.ResponseWriter, r *http.Request, peer wire.Peer) {
	index, err := n.readOnce(r.Context(), mayForward(peer))
	answer(w, readReply{index}, err)
}

type readReply struct {
	Index uint64 `json:"index"`
}

func (n *Node) serveLeader(w http.ResponseWriter, _ *http.Request, _ wire.Peer) {
	id, addr := n.Leader()
	answer(w, leaderReply{id, addr}, nil)
}

type leaderReply struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

func (n *Node) serveStatus(w http.ResponseWriter, _ *http.Request, _ wire.Peer) {
	answer(w, statusReply{n.conf.ID, n.Stats()}, nil)
}

type statusReply struct {
	ID string `json:"id"`
	Stats
}

func (n *Node) serveMember(w http.ResponseWriter, r *http.Request, peer wire.Peer) {
	if peer.Role != pki.Master {
		http.Error(w, "only masters change who is a master", http.StatusForbidden)
		return
	}
	var c memberChange
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c.Op == opReadmit && peer.ID != c.ID {
		http.Error(w, "a master asks for itself only", http.StatusForbidden)
		return
	}
	err := n.changeHere(r.Context(), c)
	answer(w, readmitted{n.raft.CurrentTerm()}, err)
}

// answer writes JSON, 503 for what another attempt may cure, 409 for other errors.
func answer(w http.ResponseWriter, v any, err error) {
	var again errRetry
	switch {
	case errors.As(err, &again):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

// reply is the answer to one proposal.
type reply struct {
	status byte
	index  uint64
	body   []byte // the encoded result, or the text of the error
}

const (
	replyDone   = 0
	replyRetry  = 1 // not in the log because of this attempt
	replyUnsure = 2 // may be in the log
	replyDenied = 3
	replyFailed = 4 // for good
)

var errFrame = errors.New("malformed message between nodes")

// appendRequest adds a proposal: length, envelope.
func appendRequest(b []byte, env envelope) []byte {
	return append(binary.AppendUvarint(b, uint64(len(env))), env...)
}

func parseRequest(b []byte) ([]envelope, error) {
	var out []envelope
	for len(b) > 0 {
		raw, rest, err := cutBytes(b)
		if err != nil {
			return nil, err
		}
		env, err := parseEnvelope(raw)
		if err != nil {
			return nil, err
		}
		if env.marker() {
			return nil, fmt.Errorf("%w: a marker is not a proposal", errFrame)
		}
		if out = append(out, env); len(out) > maxBatch {
			return nil, fmt.Errorf("%w: more than %d proposals", errFrame, maxBatch)
		}
		b = rest
	}
	return out, nil
}

// appendReply adds a reply: status, index, length, body.
func appendReply(b []byte, r reply) []byte {
	b = binary.AppendUvarint(append(b, r.status), r.index)
	return append(binary.AppendUvarint(b, uint64(len(r.body))), r.body...)
}

func parseReplies(b []byte, want int) ([]reply, error) {
	out := make([]reply, 0, want)
	for len(b) > 0 && len(out) < want {
		r := reply{status: b[0]}
		index, k := binary.Uvarint(b[1:])
		if k <= 0 {
			return nil, errFrame
		}
		var err error
		r.index = index
		if r.body, b, err = cutBytes(b[1+k:]); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if len(out) != want || len(b) > 0 {
		return nil, fmt.Errorf("%w: %d replies to %d proposals", errFrame, len(out), want)
	}
	return out, nil
}

func cutBytes(b []byte) (head, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, errFrame
	}
	return b[k : k+int(n) : k+int(n)], b[k+int(n):], nil
}
