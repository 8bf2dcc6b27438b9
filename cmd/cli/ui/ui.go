// Package ui renders answers for people: aligned tables, and progress that
// redraws on a terminal and prints plain lines elsewhere. Meaning is never
// carried by colour.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// Printer writes tables and lines.
type Printer struct {
	w   io.Writer
	tab *tabwriter.Writer
}

// NewPrinter returns a printer to w. Call Flush at the end.
func NewPrinter(w io.Writer) *Printer {
	return &Printer{w: w, tab: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
}

// Row writes one row of a table.
func (p *Printer) Row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(p.tab, "\t")
		}
		fmt.Fprint(p.tab, c)
	}
	fmt.Fprintln(p.tab)
}

// Line ends the table before it and writes a line of text.
func (p *Printer) Line(format string, args ...any) {
	_ = p.tab.Flush() // reported by Flush at the end
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Flush writes what is buffered.
func (p *Printer) Flush() error { return p.tab.Flush() }

// Progress shows a block of lines that changes.
type Progress struct {
	w     io.Writer
	tty   bool
	lines int
	last  map[string]string
}

// NewProgress returns a progress on w; it redraws if w is a terminal.
func NewProgress(w io.Writer) *Progress {
	return &Progress{w: w, tty: IsTerminal(w), last: map[string]string{}}
}

// Item is one line with a stable key.
type Item struct{ Key, Text string }

// Update draws the items. Elsewhere than on a terminal only lines that have
// changed since are printed.
func (p *Progress) Update(items []Item) {
	if p.tty {
		if p.lines > 0 {
			fmt.Fprintf(p.w, "\x1b[%dA", p.lines)
		}
		for _, it := range items {
			fmt.Fprintf(p.w, "\x1b[2K%s\n", it.Text)
		}
		for range p.lines - len(items) {
			fmt.Fprint(p.w, "\x1b[2K\n")
		}
		p.lines = max(p.lines, len(items))
		return
	}
	for _, it := range items {
		if p.last[it.Key] != it.Text {
			p.last[it.Key] = it.Text
			fmt.Fprintln(p.w, it.Text)
		}
	}
}

// Age is a duration in one or two units, as people say it.
func Age(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Since is Age of the time passed since t, "-" for no time. A node whose clock is ahead tells of none.
func Since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Age(max(0, time.Since(t)))
}

// Short cuts a digest to what people compare.
func Short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	if len(d) > 12 {
		d = d[:12]
	}
	if d == "" {
		return "-"
	}
	return d
}

// Or is s, or a dash.
func Or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ReadHidden reads a line from a terminal without showing it.
func ReadHidden(f *os.File) ([]byte, error) { return term.ReadPassword(int(f.Fd())) }

// Count is a number of things: "1 node", "7 nodes".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
