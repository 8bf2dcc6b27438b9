package cli

import (
	"strings"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/doctor"

	"github.com/spf13/cobra"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with the cluster and what to do",
		Long: `Ask every node what is wrong with it, and say what to do about it.

Each finding has a code that stays, such as D010. A warning costs reserve, an
error costs service now or soon. The exit code is 1 if there is an error.`,
		Example: "  appliance doctor\n  appliance doctor --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var r doctor.Report
			if err := c.Get(cmd.Context(), "/doctor", &r); err != nil {
				return err
			}
			if err := a.show(r, func(p *ui.Printer) { printReport(p, r) }); err != nil {
				return err
			}
			if r.Bad() {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
}

func printReport(p *ui.Printer, r doctor.Report) {
	if len(r.Findings) == 0 {
		p.Line("no problems found on %s (checked: %s)", ui.Count(len(r.Checked), "node"), strings.Join(r.Checks, ", "))
		return
	}
	errors, warnings := 0, 0
	for _, f := range r.Findings {
		if f.Severity == doctor.Error {
			errors++
		} else {
			warnings++
		}
		printFinding(p, f)
	}
	p.Line("")
	p.Line("%s, %s on %s (asked by %s)", ui.Count(errors, "error"), ui.Count(warnings, "warning"), ui.Count(len(r.Checked), "node"), r.Node)
}

func printFinding(p *ui.Printer, f doctor.Finding) {
	since := ""
	if !f.Since.IsZero() {
		since = " (for " + ui.Since(f.Since) + ")"
	}
	p.Line("%-7s %s %s%s%s", f.Severity, f.Code, where(f), f.What, since)
	if f.Why != "" {
		p.Line("  why: %s", f.Why)
	}
	if f.Fix != "" {
		p.Line("  fix: %s", f.Fix)
	}
}

func where(f doctor.Finding) string {
	if f.Node == "" {
		return ""
	}
	return f.Node + ": "
}

// statusFindings is how many findings the status shows.
const statusFindings = 8

// printFindings shows the worst findings in one line each, as far as the node
// knows them: one of an older version has only words.
func printFindings(p *ui.Printer, st api.Status) {
	for i, f := range st.Findings {
		if i == statusFindings {
			p.Line("and %d more", len(st.Findings)-i)
			break
		}
		p.Line("%s: %s%s (%s)", f.Severity, where(f), f.What, f.Code)
	}
	if len(st.Findings) > 0 {
		p.Line("what to do about it: appliance doctor")
		return
	}
	for _, w := range st.Warnings {
		p.Line("warning: %s", w)
	}
}
