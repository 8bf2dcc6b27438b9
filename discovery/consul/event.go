package consul

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/command"
	"appliance/raft/state"
)

// UserEvent is the kind of Consul's user events among the cluster's events.
// They share its bounded history, so every node lists them.
const UserEvent = "user-event"

type eventJSON struct {
	ID            string
	Name          string
	Payload       []byte
	NodeFilter    string
	ServiceFilter string
	TagFilter     string
	Version       int
	LTime         uint64
}

func (s *Server) eventFire(w http.ResponseWriter, r *http.Request) error {
	name, q := rest(r, "/v1/event/fire/"), r.URL.Query()
	if name == "" {
		return fail(http.StatusBadRequest, "Missing name")
	}
	payload, err := readBody(r, maxEvent)
	if err != nil {
		return err
	}
	e := eventJSON{
		ID: newID(), Name: name, Payload: payload, NodeFilter: q.Get("node"), ServiceFilter: q.Get("service"),
		TagFilter: q.Get("tag"), Version: 1,
	}
	if len(payload) == 0 {
		e.Payload = nil
	}
	_, err = s.propose(r.Context(), &command.RecordEvent{Event: model.Event{
		At: time.Now(), Kind: UserEvent, Subject: name, Text: "was fired on " + s.cfg.Node,
		Fields: map[string]string{
			"id": e.ID, "payload": base64.StdEncoding.EncodeToString(payload),
			"node": e.NodeFilter, "service": e.ServiceFilter, "tag": e.TagFilter,
		},
	}})
	if err != nil {
		return err
	}
	return s.respond(w, r, e)
}

// eventList lists user events, oldest first. Its index is made of the id of
// the last one, as the client libraries compute it, and so is no number that
// grows.
func (s *Server) eventList(w http.ResponseWriter, r *http.Request) error {
	want := r.URL.Query().Get("name")
	return s.read(w, r, query{tables: []string{state.Events.Name}, differs: true, run: func(v view) (any, uint64, bool, error) {
		out := []eventJSON{}
		for row := range state.Events.All(v.snap) {
			if row.Kind == UserEvent && (want == "" || row.Subject == want) {
				out = append(out, eventOf(row))
			}
		}
		index := uint64(1)
		if len(out) > 0 {
			index = idIndex(out[len(out)-1].ID)
		}
		return out, index, true, nil
	}})
}

func eventOf(row *model.Event) eventJSON {
	e := eventJSON{
		ID: row.Fields["id"], Name: row.Subject, NodeFilter: row.Fields["node"], ServiceFilter: row.Fields["service"],
		TagFilter: row.Fields["tag"], Version: 1, LTime: row.Seq,
	}
	if payload, err := base64.StdEncoding.DecodeString(row.Fields["payload"]); err == nil && len(payload) > 0 {
		e.Payload = payload
	}
	return e
}

// idIndex folds a UUID into a number: its halves, exclusive or.
func idIndex(id string) uint64 {
	hex := strings.ReplaceAll(id, "-", "")
	if len(hex) != 32 {
		return 1
	}
	low, err1 := strconv.ParseUint(hex[:16], 16, 64)
	high, err2 := strconv.ParseUint(hex[16:], 16, 64)
	if err1 != nil || err2 != nil {
		return 1
	}
	return low ^ high
}
