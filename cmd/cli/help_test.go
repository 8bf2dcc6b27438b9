package cli

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// verbs calls fn for every verb that help shows, parents first.
func verbs(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			verbs(c, fn)
		}
	}
}

func newRoot() *cobra.Command {
	return (&app{out: io.Discard, errOut: io.Discard, version: "v1.2.3"}).root()
}

// TestHelpTexts holds all help against a golden file, so that a change of what
// users read is seen in review. -update writes it.
func TestHelpTexts(t *testing.T) {
	const golden = "testdata/help.golden"
	var got bytes.Buffer
	verbs(newRoot(), func(cmd *cobra.Command) {
		var text bytes.Buffer
		cmd.SetOut(&text)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		if cmd.HasParent() { // the flags that all have are shown once
			before, _, _ := strings.Cut(text.String(), "\nGlobal Flags:")
			text.Reset()
			text.WriteString(strings.TrimRight(before, "\n") + "\n")
		}
		got.WriteString("=== " + cmd.CommandPath() + "\n" + text.String() + "\n")
	})
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("help has changed; if that is right: go test ./cmd/cli -run TestHelpTexts -update\n%s", firstDifference(string(want), got.String()))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			return "want: " + w[i] + "\ngot:  " + strings.Join(g[min(i, len(g)):min(i+1, len(g))], "")
		}
	}
	return "got more: " + g[len(w)]
}

func TestVerbsHaveTheSameManners(t *testing.T) {
	verbs(newRoot(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if s := cmd.Short; s == "" || strings.HasSuffix(s, ".") || s[:1] != strings.ToUpper(s[:1]) {
			t.Errorf("%s: its short text %q is not a phrase that begins with a capital", path, s)
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			if line != "" && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example %q is not indented", path, line)
			}
			parses(t, strings.TrimSpace(line))
		}
		if cmd.Runnable() && cmd.Args == nil {
			t.Errorf("%s takes any words", path)
		}
	})
}
