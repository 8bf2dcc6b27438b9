package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// words splits a line as a shell would, as far as documents need it. It stops
// where another command or a comment begins.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quote, open := rune(0), false
	end := func() {
		if open {
			out = append(out, word.String())
		}
		word.Reset()
		open = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|;&>", r), r == '#' && !open:
			end()
			return out
		default:
			word.WriteRune(r)
			open = true
		}
	}
	end()
	return out
}

// prompt is what stands before a command in a document, for example "mm1$ sudo ".
var prompt = regexp.MustCompile(`^(\w*\$ )?(sudo )?`)

// parses fails the test if a line is not one that the command line or the
// Makefile takes. Lines of other programs are let through.
func parses(t *testing.T, line string) {
	t.Helper()
	args := words(prompt.ReplaceAllString(line, ""))
	if len(args) == 0 {
		return
	}
	switch args[0] {
	case "make":
		raw, err := os.ReadFile(root + "/Makefile")
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range args[1:] {
			if !strings.Contains(target, "=") && !strings.Contains(string(raw), "\n"+target+":") {
				t.Errorf("%s: the Makefile has no target %s", line, target)
			}
		}
	case "appliance", "bin/appliance", "./bin/appliance":
		takes(t, line, args[1:])
	}
}

// takes fails the test if the command line does not take args.
func takes(t *testing.T, line string, args []string) {
	t.Helper()
	cmd, rest, err := newRoot().Find(args)
	if err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	if inner := slices.Index(rest, "appliance"); cmd.CommandPath() == "appliance lab exec" && inner >= 0 {
		takes(t, line, rest[inner+1:])
	}
}

var inline = regexp.MustCompile("`((?:make|appliance) [^`]+)`")

// Every command that a document shows is one that works.
func TestDocumentsShowCommandsThatExist(t *testing.T) {
	for _, doc := range []string{"README.md", "vagrant/DESIGN.md", "node/DESIGN.md", "cmd/DESIGN.md"} {
		raw, err := os.ReadFile(root + "/" + doc)
		if err != nil {
			t.Error(err)
			continue
		}
		block := false
		for line := range strings.Lines(string(raw)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "```") {
				block = !block
				continue
			}
			if block {
				parses(t, line)
				continue
			}
			for _, m := range inline.FindAllStringSubmatch(line, -1) {
				if args := words(m[1]); args[0] == "appliance" {
					if cmd, rest, err := newRoot().Find(args[1:]); err != nil || !cmd.HasParent() {
						t.Errorf("%s: %q: %v %v", doc, m[1], err, rest)
					}
				} else {
					parses(t, m[1])
				}
			}
		}
	}
}
