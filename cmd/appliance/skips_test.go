package main

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// skips are the functions that may skip a test, with what makes that safe.
// Everybody else asks node/needs, which fails where CI is set.
var skips = map[string]string{
	"node/needs/needs.go Missing":                   "fails where CI is set",
	"node/runtime/runtimetest/conformance.go needs": "for the fake engine only, which has no processes",
}

// skipping gives the functions of a file that call Skip on anything but a
// *rapid.T, whose Skip leaves out one step of a random test.
func skipping(f *file) []string {
	var out []string
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		random := map[*ast.Object]bool{} // parameters of type *rapid.T
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if star, ok := n.Type.(*ast.StarExpr); ok {
					if s, ok := star.X.(*ast.SelectorExpr); ok && s.Sel.Name == "T" && s.X.(*ast.Ident).Name == "rapid" {
						for _, name := range n.Names {
							random[name.Obj] = true
						}
					}
				}
			case *ast.CallExpr:
				s, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
					break
				}
				if id, ok := s.X.(*ast.Ident); !ok || !random[id.Obj] {
					out = append(out, f.path+" "+fn.Name.Name)
				}
			}
			return true
		})
	}
	return out
}

func TestNothingIsSkippedUnseen(t *testing.T) {
	found := map[string]bool{}
	for _, f := range sources(t) {
		if !slices.ContainsFunc(f.imports(), func(i string) bool { return i == "testing" || i == "pgregory.net/rapid" }) {
			continue
		}
		for _, where := range skipping(f) {
			found[where] = true
			if skips[where] == "" {
				t.Errorf("%s skips a test, also in CI: say by node/needs what it needs", where)
			}
		}
	}
	for where := range skips {
		if !found[where] {
			t.Errorf("%s skips nothing any more", where)
		}
	}
}

// What `make test` leaves out by name is run by a target that it calls, and
// .ci/run installs what tests ask for.
func TestCIRunsWhatIsLeftOut(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]string{} // target: recipe
	for _, rule := range regexp.MustCompile(`(?m)^([a-z0-9-]+):.*\n((?:\t.*\n?)+)`).FindAllStringSubmatch(string(raw), -1) {
		rules[rule[1]] = rule[2]
	}
	left := regexp.MustCompile(`-skip '\^\((.*?)\)\$\$'`).FindStringSubmatch(rules["test"])
	calls := regexp.MustCompile(`\$\(MAKE\) --no-print-directory ([a-z0-9 -]+)\)`).FindStringSubmatch(rules["test"])
	if left == nil || calls == nil {
		t.Fatalf("the test target is another one now: %s", rules["test"])
	}
	for _, name := range strings.Split(left[1], "|") {
		if !slices.ContainsFunc(strings.Fields(calls[1]), func(target string) bool {
			return strings.Contains(rules[target], "-run '^"+name+"$$'")
		}) {
			t.Errorf("`make test` leaves %s out, and no target that it calls runs it: %v", name, calls[1])
		}
	}
	ci, err := os.ReadFile(filepath.Join(root, ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"export CI=true", "\tmake test\n", "make --no-print-directory sim SEEDS=50", "make --no-print-directory demo", "make --no-print-directory chaos"} {
		if !strings.Contains(string(ci), want) {
			t.Errorf(".ci/run does not say %q", want)
		}
	}
	if strings.Contains(string(raw), "-short") {
		t.Error("the Makefile runs tests with -short")
	}
	installed := regexp.MustCompile(`(?m)^TEST_DEPS\s*:=(.*)$`).FindStringSubmatch(string(raw))
	for _, f := range sources(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 || f.dir == "node/needs" {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Tool" {
				return true
			}
			if lit, ok := call.Args[2].(*ast.BasicLit); ok {
				if pkg, _ := strconv.Unquote(lit.Value); !slices.Contains(strings.Fields(installed[1]), pkg) {
					t.Errorf("%s needs %s, which test-deps in the Makefile does not install", f.path, pkg)
				}
			}
			return true
		})
	}
}
