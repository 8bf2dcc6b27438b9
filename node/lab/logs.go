package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	// tailBytes bounds what is searched for the last lines.
	tailBytes = 1 << 20
	// followWait is how often a followed file is looked at: a person reads it.
	followWait = 100 * time.Millisecond
)

// Logs writes the last lines of the machine's service output, and with follow
// what comes, until ctx ends.
func (l *Lab) Logs(ctx context.Context, machine string, lines int, follow bool, w io.Writer) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	if _, _, err := s.machine(machine); err != nil {
		return err
	}
	f, err := os.Open(l.LogFile(machine))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has not run its service yet: 'appliance lab start %s'", machine, machine)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tail(f, lines, w); err != nil {
		return err
	}
	for follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followWait):
		}
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
	}
	return nil
}

// tail writes the last lines of f and leaves f at its end.
func tail(f *os.File, lines int, w io.Writer) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.Seek(max(0, size-tailBytes), io.SeekStart); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return err
	}
	_, err = w.Write(lastLines(text, lines))
	return err
}

func lastLines(text []byte, n int) []byte {
	if n <= 0 {
		return nil
	}
	end := len(bytes.TrimSuffix(text, []byte("\n")))
	for i := 0; i < n; i++ {
		if end = bytes.LastIndexByte(text[:end], '\n'); end < 0 {
			return text
		}
	}
	return text[end+1:]
}

// Text is the table for people.
func (s Status) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lab at %s, network %s, VIP %s\n", s.Dir, s.Network, s.VIP)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MACHINE\tROLE\tADDRESS\tPOWER\tLINK\tSERVICE\tRESTARTS\tLAST EXIT")
	for _, m := range s.Machines {
		service, restarts, last := "-", "-", ""
		if m.Service != nil {
			service, restarts, last = m.Service.State, fmt.Sprint(m.Service.Restarts), m.Service.LastExit
		}
		link := m.Link
		if m.Loss > 0 {
			link += fmt.Sprintf(", %g %% loss", m.Loss)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Role, m.Address, m.Power, link, service, restarts, last)
	}
	w.Flush()
	for _, c := range s.Cuts {
		fmt.Fprintf(&b, "cut: %s -> %s\n", c.From, c.To)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
