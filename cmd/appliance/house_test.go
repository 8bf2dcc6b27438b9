package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"appliance/node/needs"
)

// The rules of the house, as tests. A rule that has to give way is changed
// here, in the open, with its reason in a DESIGN.md.

const root = "../.."

// file is one parsed Go file.
type file struct {
	path, dir string // relative to the root
	test      bool
	ast       *ast.File
}

func (f *file) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		path, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		out = append(out, path)
	}
	return out
}

// calls gives the first use of one of the names of an imported package.
func (f *file) calls(pkg string, names ...string) string {
	local := ""
	for _, i := range f.ast.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); path == pkg {
			local = filepath.Base(pkg)
			if i.Name != nil {
				local = i.Name.Name
			}
		}
	}
	found := ""
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && local != "" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
				found = pkg + "." + s.Sel.Name
			}
		}
		return found == ""
	})
	return found
}

// sources parses every Go file of the module; testdata is not of it.
func sources(t *testing.T) []*file {
	t.Helper()
	var out []*file
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, g := range parsed.Comments {
			if g.Pos() < parsed.Package && strings.Contains(g.List[0].Text, "go:build pending") {
				return nil
			}
		}
		rel, err := filepath.Rel(root, path)
		out = append(out, &file{path: rel, dir: filepath.Dir(rel), test: strings.HasSuffix(path, "_test.go"), ast: parsed})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d files were found", len(out))
	}
	return out
}

func below(dir string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return dir == tree || strings.HasPrefix(dir, tree+"/") })
}

const module = "appliance/"

func TestModelImportsTheStandardLibraryOnly(t *testing.T) {
	for _, f := range sources(t) {
		for _, i := range f.imports() {
			if f.dir == "node/model" && !f.test && (strings.HasPrefix(i, module) || strings.Contains(strings.Split(i, "/")[0], ".")) {
				t.Errorf("%s imports %s", f.path, i)
			}
		}
	}
}

// pure packages take the clock and randomness as arguments and touch nothing
// outside.
var pure = []string{"node/model", "raft/state", "raft/command", "raft/archive", "raft/autopilot", "sched", "sched/deploy", "discovery", "registry/gc", "registry/ref",
	"nfs/lockrange", "nfs/xdr"}

// shells are the files of pure packages that drive them.
var shells = []string{"sched/loop.go", "sched/volumes.go", "discovery/watcher.go"}

func TestPurePackagesTouchNothingOutside(t *testing.T) {
	outside := []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "io/ioutil", "database/sql"}
	for _, f := range sources(t) {
		if f.test || !slices.Contains(pure, f.dir) || slices.Contains(shells, f.path) {
			continue
		}
		for _, i := range f.imports() {
			if slices.Contains(outside, i) || strings.HasPrefix(i, "math/rand") || i == "crypto/rand" {
				t.Errorf("%s imports %s: take it as an argument", f.path, i)
			}
		}
		if use := f.calls("time", "Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"); use != "" {
			t.Errorf("%s uses %s: take the time as an argument", f.path, use)
		}
	}
}

// layers is the direction of imports: a tree may import only what is before
// it, or itself. "model <- pure packages <- shells <- node <- cmd".
func TestImportsRunOneWay(t *testing.T) {
	shell := []string{"raft", "sched", "discovery", "lb", "registry", "nfs", "vagrant"}
	// What of node/ lies under the shells: the words and the wire.
	base := []string{"node/model", "node/wire", "node/pki"}
	for _, f := range sources(t) {
		for _, i := range f.imports() {
			to, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			switch {
			case below(to, "cmd") && !below(f.dir, "cmd"):
				t.Errorf("%s imports %s: only cmd may", f.path, i)
			case to == "node" && !below(f.dir, "cmd", "node"):
				t.Errorf("%s imports %s: node wires, it is not used", f.path, i)
			case !f.test && below(f.dir, shell...) && below(to, "node") && !below(to, base...):
				t.Errorf("%s imports %s: of node it may use %v only", f.path, i, base)
			case !f.test && slices.Contains(pure, f.dir) && !slices.Contains(pure, to):
				t.Errorf("%s imports %s, which is not pure", f.path, i)
			}
		}
	}
}

// engines are the third-party modules, each with the packages that may know
// it. Tests are free: they look at our work with other people's tools.
var engines = map[string][]string{
	"github.com/hashicorp/raft":         {"raft"},
	"github.com/hashicorp/raft-wal":     {"raft"},
	"github.com/hashicorp/go-memdb":     {"raft/state"},
	"github.com/hashicorp/memberlist":   {"discovery/gossip"},
	"github.com/hashicorp/go-bexpr":     {"discovery/consul"},
	"github.com/hashicorp/consul":       {},
	"github.com/mesos/mesos-go":         {},
	"github.com/miekg/dns":              {"discovery/dns"},
	"github.com/docker":                 {"node/runtime/docker"},
	"github.com/containerd":             {"node/runtime/containerd", "node/runtime/docker"}, // docker: its client's error classes
	"github.com/google/nftables":        {"node/runtime/network", "node/lab"},
	"github.com/vishvananda/netlink":    {"node/runtime/network", "node/runtime/runtimetest", "node/lab", "lb/vip"},
	"github.com/vishvananda/netns":      {"node/runtime/network", "node/lab"},
	"github.com/hanwen/go-fuse":         {"nfs/mount", "node/lab/lyingfs"},
	"github.com/klauspost/compress":     {"node/runtime/containerd/runc"},
	"github.com/spf13/cobra":            {"cmd/cli"},
	"go.etcd.io/bbolt":                  {"node/agent"},
	"go.yaml.in/yaml":                   {"vagrant", "cmd/cli", "node/lab/story"},
	"golang.org/x/crypto":               {"cmd/notejam"},
	"golang.org/x/term":                 {"cmd/cli/ui"},
	"google.golang.org/protobuf":        {"sched/mesos"},
	"modernc.org/sqlite":                {"cmd/notejam"},
	"pgregory.net/rapid":                {},
	"github.com/anishathalye/porcupine": {"node/register", "node/sim", "node/lab/chaos"},
}

func TestEnginesStayBehindOnePackage(t *testing.T) {
	for _, f := range sources(t) {
		for _, i := range f.imports() {
			for engine, homes := range engines {
				if !f.test && below(i, engine) && !below(f.dir, homes...) {
					t.Errorf("%s imports %s: only %v may", f.path, i, homes)
				}
			}
		}
	}
}

var modulePath = regexp.MustCompile(`[a-z]+\.[a-z.]+/[A-Za-z0-9._/-]+`)

func TestEveryDependencyHasAReason(t *testing.T) {
	design, err := os.ReadFile(filepath.Join(root, "node/DESIGN.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := modulePath.FindAllString(string(design), -1)
	for i := range listed {
		listed[i] = strings.TrimRight(listed[i], "./")
	}
	for _, f := range sources(t) {
		for _, i := range f.imports() {
			if strings.Contains(strings.Split(i, "/")[0], ".") && !below(i, listed...) {
				t.Errorf("%s imports %s, and node/DESIGN.md does not say why", f.path, i)
			}
		}
	}
}

func TestTypesAreNamedByWhatTheyAre(t *testing.T) {
	for _, f := range sources(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok {
				for _, vague := range []string{"Manager", "Helper", "Util", "Utils"} {
					if strings.HasSuffix(s.Name.Name, vague) {
						t.Errorf("%s: type %s says nothing by %s", f.path, s.Name.Name, vague)
					}
				}
			}
			return true
		})
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	commented := map[string]bool{}
	for _, f := range sources(t) {
		if !f.test {
			commented[f.dir] = commented[f.dir] || f.ast.Doc != nil
		}
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

// tracked lists the files of the repository, which needs a git work tree.
func tracked(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(needs.Tool(t, "git", "git"), "-C", root, "ls-files", "-z").Output()
	if err != nil {
		needs.Missing(t, "no git work tree: %v", err)
	}
	return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func TestTopLevelIsTheAgreedOne(t *testing.T) {
	dirs := []string{"cmd", "discovery", "lb", "nfs", "node", "raft", "registry", "sched", "vagrant"}
	files := []string{"go.mod", "go.sum", "Makefile", "README.md"}
	for _, path := range tracked(t) {
		top, _, nested := strings.Cut(path, "/")
		if !strings.HasPrefix(top, ".") && !(nested && slices.Contains(dirs, top)) && !(!nested && slices.Contains(files, top)) {
			t.Errorf("%s does not belong at the top level", path)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(root, dir, "DESIGN.md")); err != nil {
			t.Errorf("%s has no DESIGN.md", dir)
		}
	}
}

func TestNoTrackedFileNamesThisMachine(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var banned []string
	common := []string{"/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr", "/usr/src", "/var"} // names that mean nothing
	for _, dir := range []string{here, filepath.Dir(here)} {
		if !slices.Contains(common, dir) {
			banned = append(banned, dir+"/")
		}
	}
	if out, err := exec.Command("go", "env", "GOPROXY").Output(); err == nil {
		for _, proxy := range strings.FieldsFunc(strings.TrimSpace(string(out)), func(r rune) bool { return r == ',' || r == '|' }) {
			if host, ok := strings.CutPrefix(proxy, "https://"); ok {
				banned = append(banned, host)
			}
		}
	}
	for _, path := range tracked(t) {
		raw, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			continue // removed and not committed yet
		}
		for _, word := range banned {
			if strings.Contains(string(raw), word) {
				t.Errorf("%s contains %q, which means something on this machine only", path, word)
			}
		}
	}
}
