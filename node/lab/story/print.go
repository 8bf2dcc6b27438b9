package story

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
)

// printer writes the story as plain lines. It is safe for concurrent use: a
// child's two outputs arrive on two goroutines.
type printer struct {
	mu   sync.Mutex
	w    io.Writer
	bold bool
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *printer) heading(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	p.line("\n== %s", text)
}

func (p *printer) ok(format string, args ...any) { p.line("   ok: "+format, args...) }

func (p *printer) command(words []string) {
	text := "$"
	for _, w := range words {
		text += " " + quote(w)
	}
	if p.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	p.line("%s", text)
}

// quote writes a word as a shell takes it.
func quote(w string) string {
	if w == "" || strings.ContainsAny(w, " \t\n'\"$`\\|&;<>()*?[]#~!{}") {
		return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return w
}

// indent returns a writer of a child's output, line by line.
func (p *printer) indent() *indented { return &indented{p: p} }

type indented struct {
	p    *printer
	rest []byte
}

func (i *indented) Write(b []byte) (int, error) {
	i.rest = append(i.rest, b...)
	for {
		end := bytes.IndexByte(i.rest, '\n')
		if end < 0 {
			return len(b), nil
		}
		i.p.line("   %s", i.rest[:end])
		i.rest = i.rest[end+1:]
	}
}

// flush writes a last line that has no end.
func (i *indented) flush() {
	if len(i.rest) > 0 {
		i.p.line("   %s", i.rest)
		i.rest = nil
	}
}

// PrintMarks writes the table of the measured times.
func (s *Story) PrintMarks() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	w := tabwriter.NewWriter(s.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEASURED\tPROMISED\tREMARK")
	for _, m := range s.marks {
		limit := "-"
		if m.Limit > 0 {
			limit = "< " + short(m.Limit)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.What, short(m.Took), limit, m.Note)
	}
	w.Flush()
}
