package cli

import (
	"fmt"
	"math"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"

	"github.com/spf13/cobra"
)

func (a *app) netCmd() *cobra.Command {
	cmd := look(a, "net", "Show which nodes reach each other, and how fast", at("/net"), printNet)
	cmd.Long = `Show which nodes reach each other, the round trip, and how far each node's clock
is off the others'. Every node probes the masters and some others each second,
over the port that nodes use between them; the result travels by gossip.

A row reads: this node reaches the one above in that time. "." is not probed,
"FAIL" has not answered for the last seconds, "old" is a row of a node that has
fallen silent.`
	cmd.Example = "  appliance net\n  appliance net --json"
	return cmd
}

// netColumns is how many nodes fit beside each other on a terminal.
const netColumns = 12

func printNet(p *ui.Printer, n api.Net) {
	cells := map[[2]string]string{}
	good := 0
	for _, l := range n.Links {
		cells[[2]string{l.From, l.To}] = linkCell(l)
		if l.OK {
			good++
		}
	}
	columns := n.Nodes[:min(len(n.Nodes), netColumns)]
	head := []any{"FROM"}
	for _, to := range columns {
		head = append(head, to.Name)
	}
	p.Row(append(head, "CLOCK")...)
	for _, from := range n.Nodes {
		row := []any{from.Name}
		for _, to := range columns {
			cell := cells[[2]string{from.Name, to.Name}]
			switch {
			case from.Name == to.Name:
				cell = "-"
			case !from.Alive || from.AgeMS == nil:
				cell = "old"
			case cell == "":
				cell = "."
			}
			row = append(row, cell)
		}
		p.Row(append(row, clockCell(from))...)
	}
	p.Line("")
	if more := len(n.Nodes) - len(columns); more > 0 {
		p.Line("%d more columns: appliance net --json", more)
	}
	for _, f := range n.Faults {
		p.Line("%s, for %s", f.What, ui.Age(time.Since(f.Since)))
	}
	for _, node := range n.Nodes {
		if !node.Alive {
			p.Line("%s is silent", node.Name)
		}
	}
	p.Line("%d of %d links work, as %s knows it", good, len(n.Links), n.Node)
}

func linkCell(l api.NetLink) string {
	switch {
	case l.OK:
		return millis(l.RTTMS)
	case l.State == "untried":
		return "?"
	}
	return "FAIL"
}

// clockCell leaves out what the measurement does not tell.
func clockCell(n api.NetNode) string {
	if n.ClockMS == nil || !n.Alive {
		return "?"
	}
	if math.Abs(*n.ClockMS) <= n.SlackMS {
		return "0"
	}
	sign := "+"
	if *n.ClockMS < 0 {
		sign = "-"
	}
	return sign + millis(math.Abs(*n.ClockMS))
}

func millis(v float64) string {
	switch {
	case v >= 10000:
		return fmt.Sprintf("%.0fs", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%.1fs", v/1000)
	case v >= 10:
		return fmt.Sprintf("%.0fms", v)
	}
	return fmt.Sprintf("%.1fms", v)
}
