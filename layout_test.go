// Package orchestrator_test holds the shape of the repository: which folder may
// import which, what a folder is for, and a few promises of the texts around
// the code. It reads files and runs nothing, so it answers in a second.
package orchestrator_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	module   = "github.com/orchestrator-project/orchestrator"
	maxLines = 600 // of a hand-written file
	maxDepth = 8   // packages of ours in the longest chain of imports: main, provider, what providers share, models, engine, language, triggers, domain
)

// room is a top folder: why it exists and which other rooms it may import.
type room struct {
	reason  string
	imports []string
	tool    bool // no part of the server: may use the doors in toolDoors
}

var rooms = map[string]room{
	"proto":      {reason: "the API: protos, the code generated from them, its JSON form and its values in words"},
	"pipeline":   {reason: "the domain: language, plan, events and the pure state machine"},
	"migrations": {reason: "the database schema, one folder per dialect"},
	"store":      {reason: "durable storage: the contract and its implementations", imports: []string{"pipeline", "migrations"}},
	"executor":   {reason: "the engine: lanes, steps, models", imports: []string{"pipeline", "store"}},
	"server":     {reason: "the gRPC service, the REST gateway and authentication", imports: []string{"proto", "pipeline", "store"}},
	"web":        {reason: "the dashboard, a client of the API", imports: []string{"proto"}},
	"client":     {reason: "what Go programs of others import: to be a worker", imports: []string{"proto"}},
	"cmd": {
		reason:  "the only main program: verbs, configuration, wiring",
		imports: []string{"proto", "pipeline", "migrations", "store", "executor", "server", "web", "client"},
	},
	"examples": {reason: "pipelines that run as they stand, each of them in the tests"},
	"deploy":   {reason: "how to put a release on a machine: image, charts, boards"},
	"docs":     {reason: "guide, reference, decisions, rough edges"},
	"bench":    {reason: "the measuring program", imports: []string{"proto", "pipeline"}, tool: true},
	"scripts":  {reason: "what developers and CI run beside go", imports: []string{"proto", "pipeline"}, tool: true},
}

// openRooms may be imported at any depth: they are pure, data, or libraries.
var openRooms = []string{"pipeline", "proto", "client"}

// toolDoors are the packages behind other doors that bench and scripts may use.
var toolDoors = map[string]string{
	"store/storetest": "finds or starts the PostgreSQL that the tests use",
	"executor/step":   "describes the actions, of which scripts/actions makes the reference",
	"scripts/replica": "starts and kills the server processes that bench measures and the kill test tortures",
}

// harnesses are packages that only tests use; as tests, they may name
// implementations.
var harnesses = map[string]string{
	"store/storetest": "opens the stores that it proves",
	"web/webtest":     "drives a browser",
}

// source is one Go file as far as the rules care.
type source struct {
	name       string // from the root, with slashes
	dir        string
	pkg        string
	doc        string
	lines      int
	test       bool
	generated  bool
	imports    []string // of ours, without the module, "." for the root
	implements []string // packages with an interface that it asserts to satisfy
}

func (s source) room() string { return roomOf(s.dir) }

func roomOf(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// TestLayout holds the rules for the tree that it stands in.
func TestLayout(t *testing.T) {
	for _, v := range checkLayout(t, os.DirFS(".")) {
		t.Error(v)
	}
}

// checkLayout returns every violation in a tree, each with what to do about it.
func checkLayout(t *testing.T, tree fs.FS) []string {
	t.Helper()
	files, violations, err := scan(tree)
	if err != nil {
		t.Fatal(err)
	}
	violations = append(violations, checkFolders(tree)...)
	violations = append(violations, checkImports(files)...)
	violations = append(violations, checkDocs(files)...)
	violations = append(violations, checkDepth(files)...)
	slices.Sort(violations)
	return slices.Compact(violations)
}

// skipped reports whether a folder holds nothing hand-written of ours.
func skipped(name string) bool {
	base := path.Base(name)
	return base == "node_modules" || base == "testdata" || name == "bin" || base != "." && strings.HasPrefix(base, ".")
}

// scan reads every source file below the root and finds those that are too long.
func scan(tree fs.FS) (files []source, violations []string, err error) {
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // removed while we walk
				return nil
			}
			return err
		}
		if d.IsDir() {
			if skipped(name) {
				return fs.SkipDir
			}
			return nil
		}
		switch path.Ext(name) {
		case ".go", ".templ", ".js", ".proto", ".sql":
		default:
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		s := source{name: name, dir: path.Dir(name), lines: strings.Count(string(text), "\n")}
		if path.Ext(name) == ".go" {
			if s, err = parse(s, text); err != nil {
				return err
			}
			files = append(files, s)
		}
		if s.lines > maxLines && !s.generated {
			violations = append(violations, fmt.Sprintf(
				"%s has %d lines, more than %d: look for a seam and split it there", name, s.lines, maxLines))
		}
		return nil
	})
	return files, violations, err
}

func parse(s source, text []byte) (source, error) {
	file, err := parser.ParseFile(token.NewFileSet(), s.name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return s, fmt.Errorf("%s cannot be parsed: %w", s.name, err)
	}
	s.pkg = file.Name.Name
	s.doc = file.Doc.Text()
	s.test = strings.HasSuffix(s.name, "_test.go")
	s.generated = ast.IsGenerated(file) || strings.HasSuffix(s.name, "_templ.go") ||
		strings.HasSuffix(s.name, ".pb.go") || strings.HasSuffix(s.name, ".pb.gw.go")
	names := map[string]string{} // as used in the file -> folder
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return s, err
		}
		dir, ours := strings.CutPrefix(imported, module)
		if !ours || dir != "" && dir[0] != '/' {
			continue
		}
		dir = path.Clean(strings.TrimPrefix(dir, "/"))
		s.imports = append(s.imports, dir)
		name := path.Base(dir)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = dir
	}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs { // var _ store.Store = (*Store)(nil)
			v, _ := spec.(*ast.ValueSpec)
			if v == nil || len(v.Names) != 1 || v.Names[0].Name != "_" {
				continue
			}
			if sel, ok := v.Type.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && names[x.Name] != "" {
					s.implements = append(s.implements, names[x.Name])
				}
			}
		}
	}
	return s, nil
}

// checkFolders holds that each top folder is one of ours.
func checkFolders(tree fs.FS) (violations []string) {
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		if !e.IsDir() || skipped(e.Name()) {
			continue
		}
		if _, ok := rooms[e.Name()]; !ok {
			violations = append(violations, fmt.Sprintf(
				"%s/ is a new top folder: put its files into one of the rooms of docs/architecture.md, or add its line and its reason to rooms in layout_test.go",
				e.Name()))
		}
	}
	return violations
}

// checkImports holds the three rules for all files but tests.
func checkImports(files []source) (violations []string) {
	implementations := map[string]bool{} // children that satisfy an ancestor's interface
	for _, f := range files {
		for _, contract := range f.implements {
			if !f.test && inside(f.dir, contract) {
				implementations[f.dir] = true
			}
		}
	}
	for _, f := range files {
		if f.test || harnesses[f.dir] != "" {
			continue
		}
		for _, to := range f.imports {
			if why := forbidden(f, to, implementations); why != "" {
				violations = append(violations, fmt.Sprintf("%s imports %s: %s", f.name, to, why))
			}
		}
	}
	return violations
}

// inside reports whether dir lies below parent.
func inside(dir, parent string) bool { return strings.HasPrefix(dir, parent+"/") }

// forbidden says why a file may not import a folder of ours, or nothing.
func forbidden(f source, to string, implementations map[string]bool) string {
	from, target := f.room(), roomOf(to)
	if inside(to, f.dir) {
		return "a parent never imports its child (rule 2); declare what you need as an interface here and let cmd/orchestrator/wire.go join them"
	}
	if from == target {
		if implementations[to] && !inside(f.dir, to) && from != "cmd" {
			return "it is an implementation, and only cmd names those (rule 2); use the contract in " + path.Dir(to)
		}
		return ""
	}
	r := rooms[from]
	if r.tool && toolDoors[to] != "" {
		return ""
	}
	if !slices.Contains(r.imports, target) {
		allowed := "nothing of ours"
		if len(r.imports) > 0 {
			allowed = "only " + strings.Join(r.imports, ", ")
		}
		return fmt.Sprintf("%s may import %s (rule 1); declare the small interface that you consume and let cmd/orchestrator/wire.go join the rooms", from, allowed)
	}
	if to != target && from != "cmd" && !slices.Contains(openRooms, target) {
		return fmt.Sprintf("a room has one door (rule 3); import %s, and move what you need there", target)
	}
	return ""
}

// checkDocs holds that each package says what it is for.
func checkDocs(files []source) (violations []string) {
	documented := map[string]bool{}
	names := map[string]string{}
	for _, f := range files {
		if f.test || f.generated {
			continue
		}
		names[f.dir] = f.pkg
		if f.pkg == "main" && f.doc != "" || strings.HasPrefix(f.doc, "Package "+f.pkg+" ") {
			documented[f.dir] = true
		}
	}
	for dir, pkg := range names {
		if !documented[dir] {
			violations = append(violations, fmt.Sprintf(
				"%s: package %s has no comment; begin one of its files with %q and say its duty, who owns what, and an example", dir, pkg, "// Package "+pkg+" "))
		}
	}
	return violations
}

// checkDepth holds that the longest chain of imports stays short.
func checkDepth(files []source) (violations []string) {
	edges := map[string][]string{}
	for _, f := range files {
		if !f.test {
			edges[f.dir] = append(edges[f.dir], f.imports...)
		}
	}
	chains := map[string][]string{}
	var chain func(dir string) []string
	chain = func(dir string) []string {
		if c, ok := chains[dir]; ok {
			return c
		}
		chains[dir] = []string{dir} // ends a cycle; the compiler refuses those
		longest := []string{}
		for _, to := range edges[dir] {
			if c := chain(to); len(c) > len(longest) {
				longest = c
			}
		}
		chains[dir] = append([]string{dir}, longest...)
		return chains[dir]
	}
	for dir := range edges {
		if c := chain(dir); len(c) > maxDepth {
			violations = append(violations, fmt.Sprintf(
				"%s: its imports go %d packages deep, more than %d: %s; fold two of them into one", dir, len(c), maxDepth, strings.Join(c, " -> ")))
		}
	}
	return violations
}

// TestReadmeCommands holds that what the README tells to type exists.
func TestReadmeCommands(t *testing.T) {
	readme, makefile := read(t, "README.md"), read(t, "Makefile")
	for _, target := range []string{"run", "test"} {
		if !regexp.MustCompile(`(?m)^make ` + target + `\b`).MatchString(readme) {
			t.Errorf("README.md does not show %q at the start of a line: it is one of the two commands that a newcomer types", "make "+target)
		}
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):.*##`).FindAllStringSubmatch(makefile, -1) {
		targets[m[1]] = true
	}
	for _, text := range []string{readme, read(t, "CONTRIBUTING.md")} {
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z0-9-]*)").FindAllStringSubmatch(text, -1) {
			if !targets[m[1]] {
				t.Errorf("the texts say %q, which is no target with a ## comment in Makefile: add it or correct the text", "make "+m[1])
			}
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// foreign is what belongs to somebody's machine or network and not into the
// project. The patterns are written so that they do not match themselves.
var foreign = []*regexp.Regexp{
	regexp.MustCompile(`/(?:root|home/[a-z][a-z0-9_-]*|Users/[A-Za-z][A-Za-z0-9_-]*)/`),
	regexp.MustCompile(`registry\.npmjs[.]org|(?:proxy|sum)\.golang[.]org|"resolved"[:]`),
}

// foreignFree lists files that may speak of such things, with the reason.
var foreignFree = map[string]string{}

// TestNoMachinePaths holds that no text of the project names a place that
// exists only on one machine, or the registry that one network uses.
func TestNoMachinePaths(t *testing.T) {
	patterns := slices.Clone(foreign)
	if here, err := os.Getwd(); err == nil && strings.Count(here, "/") > 1 {
		patterns = append(patterns, regexp.MustCompile(regexp.QuoteMeta(here)+"/"))
	}
	for _, v := range checkForeign(t, os.DirFS("."), patterns) {
		t.Error(v)
	}
}

func checkForeign(t *testing.T, tree fs.FS, patterns []*regexp.Regexp) (violations []string) {
	t.Helper()
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && name != ".ci" && path.Base(name) != "testdata" && skipped(name) {
				return fs.SkipDir
			}
			return nil // a file that went away while we walk
		}
		if path.Ext(name) == ".sum" || foreignFree[name] != "" || !d.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil || slices.Contains(text, 0) {
			return nil //nolint:nilerr // gone, or not a text
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, p := range patterns {
				if m := p.FindString(line); m != "" {
					violations = append(violations, fmt.Sprintf("%s:%d: %q belongs to a machine or network; write it relative, or take it from the environment", name, i+1, m))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return violations
}

func TestLayoutChecker(t *testing.T) {
	const doc = "// Package x is for the test.\n"
	file := func(pkg string, imports ...string) string {
		text := "// Package " + pkg + " is for the test.\npackage " + pkg + "\n"
		for _, dir := range imports {
			text += "import _ \"" + module + "/" + dir + "\"\n"
		}
		return text
	}
	implementation := "// Package sqlite is for the test.\npackage sqlite\nimport \"" + module + "/store\"\nvar _ store.Store = (*Store)(nil)\n"
	for _, c := range []struct {
		name string
		tree map[string]string
		want string // within the one violation; empty: none
	}{
		{"a child implements its parent", map[string]string{"store/a.go": file("store", "pipeline"), "store/sqlite/a.go": file("sqlite", "store", "migrations")}, ""},
		{"cmd wires", map[string]string{"cmd/x/a.go": file("main", "store/sqlite", "web", "executor/step")}, ""},
		{"open rooms", map[string]string{"executor/a.go": file("executor", "pipeline/expr", "store"), "web/a.go": file("web", "proto/x/v1")}, ""},
		{"tests are free", map[string]string{"web/a_test.go": file("web", "store/sqlite")}, ""},
		{"a tool opens its door", map[string]string{"scripts/x/a.go": file("main", "store/storetest")}, ""},
		{"testdata is skipped", map[string]string{"pipeline/testdata/a.go": file("x", "web")}, ""},
		{"a harness is a test", map[string]string{"store/storetest/a.go": file("storetest", "store/sqlite"), "store/sqlite/a.go": implementation}, ""},
		{"another module", map[string]string{"pipeline/a.go": strings.ReplaceAll(file("pipeline", "web"), "orchestrator/web", "orchestrator-web")}, ""},
		{"domain imports", map[string]string{"pipeline/a.go": file("pipeline", "store")}, "pipeline may import nothing of ours (rule 1)"},
		{"unseen room", map[string]string{"web/a.go": file("web", "server")}, "web may import only proto (rule 1)"},
		{"executor and server", map[string]string{"executor/a.go": file("executor", "server")}, "executor may import only pipeline, store (rule 1)"},
		{"parent imports child", map[string]string{"executor/a.go": file("executor", "executor/step")}, "a parent never imports its child (rule 2)"},
		{"second door", map[string]string{"server/a.go": file("server", "store/sqlite")}, "a room has one door (rule 3)"},
		{"a tool has no key", map[string]string{"bench/a.go": file("main", "store/sqlite")}, "bench may import only proto, pipeline (rule 1)"},
		{
			"implementation beside implementation",
			map[string]string{"store/sqlite/a.go": implementation, "store/postgres/a.go": file("postgres", "store/sqlite")},
			"only cmd names those",
		},
		{"new top folder", map[string]string{"util/a.go": file("util")}, "util/ is a new top folder"},
		{"no package comment", map[string]string{"web/a.go": "package web\n"}, `begin one of its files with "// Package web "`},
		{"comment of another", map[string]string{"web/a.go": doc + "package web\n"}, "package web has no comment"},
		{"long file", map[string]string{"web/a.js": strings.Repeat("\n", maxLines+1)}, "look for a seam"},
		{"long generated file", map[string]string{"web/a_templ.go": file("web") + strings.Repeat("\n", maxLines)}, ""},
		{
			"deep imports",
			map[string]string{
				"pipeline/a/a.go": file("a", "pipeline/b"), "pipeline/b/a.go": file("b", "pipeline/c"), "pipeline/c/a.go": file("c", "pipeline/d"),
				"pipeline/d/a.go": file("d", "pipeline/e"), "pipeline/e/a.go": file("e", "pipeline/f"), "pipeline/f/a.go": file("f", "pipeline/g"),
				"pipeline/g/a.go": file("g", "pipeline/h"), "pipeline/h/a.go": file("h", "pipeline/i"), "pipeline/i/a.go": file("i"),
			},
			"9 packages deep, more than 8: pipeline/a -> pipeline/b",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, text := range c.tree {
				tree[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got := checkLayout(t, tree)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("violations %q, want none", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("violations %q, want one with %q", got, c.want)
			}
		})
	}
}

func TestForeignChecker(t *testing.T) {
	for text, bad := range map[string]bool{
		"see /ho" + "me/anna/src/a.go":                    true,
		"cache: /ro" + "ot/.cache/x":                      true,
		"/Us" + "ers/Anna/x":                              true,
		`"resol` + `ved": "https://example.org/a.tgz"`:    true,
		"https://registry.npm" + "js.org/axe":             true,
		"/var/lib/orchestrator, /home, ~/.orchestrator/x": false,
		"https://example.org/home/":                       false,
	} {
		got := checkForeign(t, fstest.MapFS{"docs/a.md": {Data: []byte(text)}}, foreign)
		if (len(got) > 0) != bad {
			t.Errorf("%q: violations %q, want any: %t", text, got, bad)
		}
	}
}
