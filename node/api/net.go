package api

import (
	"context"
	"net/http"
	"time"

	"appliance/node/doctor"
	"appliance/node/model"
)

// Checkups is a Cluster that knows its links and can examine itself.
type Checkups interface {
	// Net is the reachability matrix as this node knows it.
	Net() Net
	// Findings are those that this node knows of without asking, the worst first.
	Findings() []doctor.Finding
	// Checkup asks all nodes what is wrong with them.
	Checkup(ctx context.Context) doctor.Report
}

// Net is the answer of GET /net: who reaches whom.
type Net struct {
	Node   string     `json:"node"` // that answered
	Nodes  []NetNode  `json:"nodes"`
	Links  []NetLink  `json:"links"`
	Faults []NetFault `json:"faults"`
}

// NetNode is one row of the matrix.
type NetNode struct {
	Name  string     `json:"name"`
	Role  model.Role `json:"role"`
	Alive bool       `json:"alive"` // as gossip sees it from the node that answered
	// AgeMS is how old the node's own word on its links is; absent if there is
	// none.
	AgeMS *float64 `json:"ageMS,omitempty"`
	// ClockMS is how far the node's clock is ahead of the median of those that
	// it reaches; absent if it reaches none.
	ClockMS *float64 `json:"clockMS,omitempty"`
	SlackMS float64  `json:"slackMS,omitempty"` // how wrong ClockMS may be
}

// NetLink is one node's view of another.
type NetLink struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	OK       bool      `json:"ok"`
	State    string    `json:"state"`
	Heard    bool      `json:"heard"` // datagrams of To arrive at From
	Since    time.Time `json:"since"`
	RTTMS    float64   `json:"rttMS,omitempty"` // median of the last calls
	MinMS    float64   `json:"minMS,omitempty"`
	OffsetMS float64   `json:"offsetMS"` // To's clock minus From's
	SlackMS  float64   `json:"slackMS,omitempty"`
}

// NetFault is a broken link in words.
type NetFault struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	Kind  string    `json:"kind"` // one-way, cut, port, datagrams, unclear
	What  string    `json:"what"`
	Since time.Time `json:"since"`
}

// checkupTime bounds a checkup as a whole; each node has less.
const checkupTime = 8 * time.Second

func (s *Server) checkupRoutes() {
	c, ok := s.Cluster.(Checkups)
	if !ok {
		return
	}
	// What is wrong must be told when nobody leads, and at once.
	s.raw("GET", "/net", Need{}, func(w http.ResponseWriter, _ *http.Request) error { return answer(w, http.StatusOK, c.Net()) })
	s.raw("GET", "/doctor", Need{}, func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), checkupTime)
		defer cancel()
		return answer(w, http.StatusOK, c.Checkup(ctx))
	})
}
