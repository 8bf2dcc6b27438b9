package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"appliance/discovery/gossip"
	"appliance/node/api"
	"appliance/node/doctor"
	"appliance/node/model"
	"appliance/raft/state"
)

// pathDoctor is where every node tells what is wrong with it.
const pathDoctor = "/rpc/doctor"

const (
	// askTime is for one node, dialling included.
	askTime = 3 * time.Second
	// askAtOnce bounds the calls of a checkup.
	askAtOnce = 32
	// maxWord bounds one node's answer: a board full of findings.
	maxWord = 512 << 10
	// maxWarnings is what the status shows; the doctor shows all.
	maxWarnings = 8
)

func (n *Node) serveDoctor(w http.ResponseWriter, _ *http.Request) {
	own, _ := n.watchdogs.findings()
	_ = json.NewEncoder(w).Encode(own) // the caller is gone if this fails
}

// Checkup asks every node for its findings.
func (c apiCluster) Checkup(ctx context.Context) doctor.Report {
	n := c.n
	own, shared := n.watchdogs.findings()
	out := doctor.Report{Node: n.cfg.Name, Checked: []string{n.cfg.Name}, Checks: doctor.Checks, Findings: append(shared, own...)}
	out.Findings = append(out.Findings, divergenceFindings(n.store.Snapshot())...)
	if out.Findings == nil {
		out.Findings = []doctor.Finding{}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	for m := range state.Nodes.All(n.store.Snapshot()) {
		if m.ID == n.cfg.ID || m.Status == model.NodeLeft || m.StartedAt.IsZero() {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			list, err := n.askDoctor(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				out.Checked = append(out.Checked, m.Name)
			}
			out.Findings = append(out.Findings, list...)
		})
	}
	wg.Wait()
	slices.Sort(out.Checked)
	doctor.Sort(out.Findings)
	return out
}

// askDoctor gets a node's own findings. Silence is one, unless the silence of
// the whole node is known already.
func (n *Node) askDoctor(ctx context.Context, m *model.Node) ([]doctor.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var list []doctor.Finding
	err := getJSON(ctx, n.dialer.Client(), "https://"+withPort(m.Addr)+pathDoctor, maxWord, &list)
	if err == nil {
		for i := range list {
			list[i].Node = m.Name
		}
		return list, nil
	}
	_, shared := n.watchdogs.findings()
	known := func(f doctor.Finding) bool {
		return f.Code == doctor.SilentNode && f.Subject == m.Name || f.Code == doctor.MastersAway && m.Role == model.RoleMaster
	}
	if !n.answers(m.ID) && slices.ContainsFunc(shared, known) {
		return nil, err
	}
	if told := n.told(m.ID, m.Name); n.keys.Expired(time.Now()) || slices.ContainsFunc(told, ranOut) {
		if slices.ContainsFunc(shared, mastersAway) {
			told = slices.DeleteFunc(told, stale)
		}
		return told, err // a certificate that ran out opens no call
	}
	return []doctor.Finding{{Code: doctor.NoAnswer, Severity: doctor.Error, Node: m.Name, What: m.Name + " does not answer the doctor",
		Why: err.Error(), Fix: "what is wrong with it is not known; ask it there: appliance doctor"}}, err
}

// told is what another node says of itself by gossip: the titles only.
func (n *Node) told(id, name string) (out []doctor.Finding) {
	for _, row := range n.gossip.Rows() {
		for _, a := range row.Alerts {
			if row.From == id {
				out = append(out, alertFinding(a, name))
			}
		}
	}
	return out
}

func ranOut(f doctor.Finding) bool { return f.Code == doctor.LeafCert && f.Severity == doctor.Error }

// Without masters every node's state is stale; it is said once.
func mastersAway(f doctor.Finding) bool { return f.Code == doctor.MastersAway }
func stale(f doctor.Finding) bool       { return f.Code == doctor.StaleState }

// Findings are what an operator should know without asking: this node's own,
// the cluster's, and by their titles those that other nodes have told.
func (c apiCluster) Findings() []doctor.Finding {
	n := c.n
	own, shared := n.watchdogs.findings()
	out := append(shared, own...)
	snap := n.store.Snapshot()
	out = append(out, divergenceFindings(snap)...)
	for m := range state.Nodes.All(snap) {
		if m.ID == n.cfg.ID {
			continue
		}
		told := n.told(m.ID, m.Name)
		if slices.ContainsFunc(shared, mastersAway) {
			told = slices.DeleteFunc(told, stale)
		}
		out = append(out, told...)
	}
	doctor.Sort(out)
	return out
}

func alertFinding(a gossip.Alert, node string) doctor.Finding {
	f := doctor.Finding{Code: doctor.Code(a.Code), Severity: doctor.Warning, Node: node, What: doctor.Code(a.Code).Title()}
	if a.Error {
		f.Severity = doctor.Error
	}
	return f
}

// Warnings are the findings in one line each, the worst first.
func (c apiCluster) Warnings() []string {
	var out []string
	for _, f := range c.Findings() {
		line := fmt.Sprintf("%s (%s)", f.What, f.Code)
		if f.Node != "" {
			line = f.Node + ": " + line
		}
		out = append(out, line)
	}
	if more := len(out) - maxWarnings; more > 0 {
		out = append(out[:maxWarnings], fmt.Sprintf("and %d more; see: appliance doctor", more))
	}
	return out
}

// Net is the reachability matrix with names.
func (c apiCluster) Net() api.Net {
	n := c.n
	now := time.Now()
	out := api.Net{Node: n.cfg.Name, Nodes: []api.NetNode{}, Links: []api.NetLink{}, Faults: []api.NetFault{}}
	rows, names := map[string]gossip.Row{}, map[string]string{}
	for _, r := range n.gossip.Rows() {
		rows[r.From] = r
	}
	for m := range state.Nodes.All(n.store.Snapshot()) {
		if m.Status == model.NodeLeft || m.StartedAt.IsZero() {
			continue
		}
		names[m.ID] = m.Name
		row, told := rows[m.ID]
		out.Nodes = append(out.Nodes, netNode(m, n.alive(m.ID), row, told, now))
	}
	for id, r := range rows {
		for _, l := range r.Links {
			if names[id] != "" && names[l.To] != "" {
				out.Links = append(out.Links, api.NetLink{From: names[id], To: names[l.To], OK: l.State == gossip.LinkOK, State: l.State.String(), Heard: l.Heard,
					Since: l.Since.Round(0), RTTMS: ms(l.RTT), MinMS: ms(l.Min), OffsetMS: ms(l.Offset), SlackMS: ms(l.Slack)})
			}
		}
	}
	for _, f := range gossip.Faults(n.gossip.Rows(), n.gossip.RowAge(), now) {
		if from, to := names[f.From], names[f.To]; from != "" && to != "" {
			out.Faults = append(out.Faults, api.NetFault{From: from, To: to, Kind: string(f.Kind), What: faultText(f, from, to), Since: f.Since.Round(0)})
		}
	}
	slices.SortFunc(out.Nodes, func(a, b api.NetNode) int { // masters first
		if a.Role != b.Role {
			return strings.Compare(string(b.Role), string(a.Role))
		}
		return strings.Compare(a.Name, b.Name)
	})
	slices.SortFunc(out.Links, func(a, b api.NetLink) int { return strings.Compare(a.From+" "+a.To, b.From+" "+b.To) })
	return out
}

func netNode(m *model.Node, alive bool, row gossip.Row, told bool, now time.Time) api.NetNode {
	out := api.NetNode{Name: m.Name, Role: m.Role, Alive: alive}
	if !told {
		return out
	}
	age := ms(now.Sub(row.At))
	out.AgeMS = &age
	if ahead, slack, ok := gossip.ClockError(row.Links); ok {
		clock := ms(ahead)
		out.ClockMS, out.SlackMS = &clock, ms(slack)
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
