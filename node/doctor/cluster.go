package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// A leaf is renewed at half of its life; at three quarters something is wrong.
	leafWarn = 0.75
	// caWarn leaves a year to rotate the CA at leisure, caError a month.
	caWarn, caError = 365 * 24 * time.Hour, 30 * 24 * time.Hour
	// leaderHold is longer than an election and a restart.
	leaderHold = 5 * time.Second
	// staleHold: feeds move from master to master in about a second.
	staleHold = 5 * time.Second
	// silentHold leaves room for a restart; snapshotTimes is how many intervals
	// may pass without a snapshot.
	silentHold    = 10 * time.Second
	snapshotTimes = 2
	// versionHold is a leisurely rolling upgrade.
	versionHold = 30 * time.Minute
	// linkHold lets restarts and short losses pass.
	linkHold = 5 * time.Second
	// beatHold leaves a node that starts without masters time to meet the others.
	beatHold = 30 * time.Second
	partHold = 5 * time.Second
)

func checkCerts(s *Sample, _ Was) []Finding {
	var out []Finding
	if c := s.Certs; !c.LeafTo.IsZero() {
		left := c.LeafTo.Sub(s.Now)
		life := c.LeafTo.Sub(c.LeafFrom)
		f := Finding{Code: LeafCert, Fix: "the node renews it by itself as soon as a master with a majority answers; see appliance status and this node's log"}
		switch {
		case left <= 0:
			f.Severity, f.What = Error, fmt.Sprintf("the node's certificate ran out %s ago", Ago(-left))
			f.Why = "no master could renew it; other nodes refuse this one, while its apps, DNS and ingress go on"
			out = append(out, f)
		case left < time.Duration(float64(life)*(1-leafWarn)):
			f.Severity, f.What = Warning, fmt.Sprintf("the node's certificate runs out in %s and was not renewed", Ago(left))
			f.Why = "it should have been at half of its life; no master could be asked"
			out = append(out, f)
		}
	}
	if ca := s.Certs.CATo; !ca.IsZero() && ca.Sub(s.Now) < caWarn {
		sev := Warning
		if ca.Sub(s.Now) < caError {
			sev = Error
		}
		out = append(out, Finding{Code: CACert, Severity: sev, What: "the cluster's CA runs out on " + ca.Format(time.DateOnly),
			Why: "without it no node trusts another", Fix: "replace it while the cluster runs: appliance ca rotate"})
	}
	return out
}

// Ago is a length of time as people say it.
func Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// checkMasters is about the cluster as this node sees it.
func checkMasters(s *Sample, _ Was) []Finding {
	total, alive := len(s.Masters), 0
	var away []string
	for _, m := range s.Masters {
		if m.Alive {
			alive++
		} else {
			away = append(away, m.Name)
		}
	}
	slices.Sort(away)
	need := total/2 + 1
	switch {
	case total == 0 && s.Master && s.Leader == "":
		return []Finding{{Code: MastersAway, Severity: Error, hold: leaderHold, What: "this master knows nothing of the cluster yet: no master leads",
			Why: "it has started anew, and reads its log when a majority of the masters reach each other",
			Fix: "start the other masters; if they are lost for ever: appliance recover --plan"}}
	case total == 0:
		return nil
	case alive < need:
		return []Finding{{Code: MastersAway, Severity: Error, hold: leaderHold,
			What: fmt.Sprintf("%d of %d masters answer: no changes are possible", alive, total),
			Why:  strings.Join(away, ", ") + " do not answer; apps that run, DNS and ingress go on as last known",
			Fix:  fmt.Sprintf("start masters until %d answer; if they are lost for ever: appliance recover on one that is left", need)}}
	case s.Leader == "":
		return []Finding{{Code: MastersAway, Severity: Error, hold: leaderHold, What: "no master leads: no changes are possible",
			Why: "a majority of the masters must reach each other", Fix: "look at appliance net for links that fail"}}
	case total < 3:
		return []Finding{{Code: Tolerance, Severity: Warning, hold: silentHold, What: count(total, "master") + ": the loss of one stops all changes",
			Fix: "join masters until there are three: appliance token create --role master"}}
	case alive == need:
		return []Finding{{Code: Tolerance, Severity: Warning, hold: silentHold, What: fmt.Sprintf("%d of %d masters answer: the loss of one more stops all changes", alive, total),
			Why: strings.Join(away, ", ") + " is away", Fix: "bring it back, or replace it: appliance join with the same name"}}
	case total%2 == 0:
		return []Finding{{Code: Tolerance, Severity: Warning, hold: silentHold, What: fmt.Sprintf("%d masters tolerate no more losses than %d", total, total-1),
			Why: "a majority of an even number is larger", Fix: "join one more master, or take one away"}}
	}
	return nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func checkState(s *Sample, _ Was) []Finding {
	var out []Finding
	if s.Stale {
		why := "no master was heard since the start"
		if !s.Contact.IsZero() {
			why = "no master was heard for " + Ago(s.Now.Sub(s.Contact))
		}
		out = append(out, Finding{Code: StaleState, Severity: Error, hold: staleHold, What: "the node goes on from what it last knew", Why: why,
			Fix: "see which links fail: appliance net"})
	}
	if s.Conflict != "" {
		out = append(out, Finding{Code: IDConflict, Severity: Error, What: "two nodes use one identity", Why: s.Conflict, Fix: "stop the copy, remove its data directory and join it again"})
	}
	return out
}

func checkSnapshot(s *Sample, _ Was) []Finding {
	sn := s.Snapshot
	last := sn.At
	if sn.Started.After(last) {
		last = sn.Started
	}
	if !sn.Wanted || s.Now.Sub(last) < snapshotTimes*sn.Every {
		return nil
	}
	why := "none was ever saved here"
	if !sn.At.IsZero() {
		why = "the last is of " + Ago(s.Now.Sub(sn.At)) + " ago"
	}
	return []Finding{{Code: OldSnapshot, Severity: Warning, What: "there is no recent snapshot of the cluster on this master", Why: why,
		Fix: "look at this node's log; save one yourself: appliance snapshot save FILE"}}
}

func checkDamage(s *Sample, _ Was) []Finding {
	var out []Finding
	for _, d := range s.Damaged {
		out = append(out, Finding{Code: DamagedFile, Severity: Error, Subject: d.File, What: d.File + " is damaged", Why: d.Why, Fix: d.Fix})
	}
	return out
}

func checkVersions(s *Sample, _ Was) []Finding {
	by := map[string][]string{}
	for _, n := range s.Nodes {
		if n.Version != "" && !n.Down {
			by[n.Version] = append(by[n.Version], n.Name)
		}
	}
	if len(by) < 2 {
		return nil
	}
	var parts []string
	for v, names := range by {
		slices.Sort(names)
		list := strings.Join(names, ", ")
		if len(names) > 5 {
			list = fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
		}
		parts = append(parts, v+" on "+list)
	}
	slices.Sort(parts)
	return []Finding{{Code: OtherVersion, Severity: Warning, hold: versionHold, What: "the nodes run different versions", Why: strings.Join(parts, "; "),
		Fix: "finish the upgrade: features of the newer version wait for the last node"}}
}

func checkParts(s *Sample, _ Was) []Finding {
	var out []Finding
	for _, p := range s.Parts {
		out = append(out, Finding{Code: PartDown, Severity: Warning, Subject: p.Name, hold: partHold, What: p.Name + " does not work", Why: p.Why, Fix: p.Fix})
	}
	return out
}

// Hanging is the finding that a node cannot even examine itself: reading the
// machine has not returned. since is when that began, for how long it lasts.
func Hanging(node string, since time.Time, lasts time.Duration) Finding {
	return Finding{Code: PartDown, Severity: Error, Node: node, Subject: "doctor", Since: since, What: "the doctor of this node hangs",
		Why: fmt.Sprintf("it has waited for the machine for %s, most likely for the disk; what else it says of this node is old", Ago(lasts)),
		Fix: "look at the disk: dmesg; touch a file in the node's data directory"}
}

func checkNodes(s *Sample, _ Was) []Finding {
	var out []Finding
	away := awayMasters(s)
	for _, n := range s.Nodes {
		switch {
		case n.Alive, n.Since.IsZero() && n.Down: // the latter never started: nothing to miss
			continue
		case slices.Contains(away, n.Name): // told as one finding
			continue
		}
		f := Finding{Code: SilentNode, Severity: Warning, Subject: n.Name, hold: silentHold, Since: n.Since, What: n.Name + " is silent",
			Why: "it is down, or cut off; its apps move to other nodes when the cluster gives it up", Fix: "look at the machine; if it is gone for ever, join another of that name in its place, or forget it: appliance nodes rm " + n.Name}
		if n.Down {
			f.Severity, f.What = Error, n.Name+" is down"
			f.Why = "the cluster has given it up; its apps run elsewhere if they fit"
		}
		out = append(out, f)
	}
	return out
}

// awayMasters are the masters whose absence stops the cluster.
func awayMasters(s *Sample) (names []string) {
	for _, m := range s.Masters {
		if !m.Alive {
			names = append(names, m.Name)
		}
	}
	if len(s.Masters)-len(names) > len(s.Masters)/2 {
		return nil
	}
	return names
}

func checkLinks(s *Sample, _ Was) []Finding {
	var out []Finding
	for _, l := range s.Links {
		sev := Warning
		if l.Masters {
			sev = Error
		}
		hold := linkHold
		if l.Beats {
			sev, hold = Warning, beatHold
		}
		out = append(out, Finding{Code: BrokenLink, Severity: sev, Subject: l.From + " > " + l.To, hold: hold, What: l.What,
			Why: "both nodes are there, the network between them fails", Fix: "check cables, switch ports and firewall rules between them: ports 7600 (TCP), 7601 (TCP and UDP)"})
	}
	return out
}
