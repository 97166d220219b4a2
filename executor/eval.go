package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// program is a plan with its templates compiled: immutable, shared by its runs.
type program struct {
	plan      *pipeline.Plan
	templates []*expr.Template
	impure    map[*pipeline.StepDef]bool // some field reads files or the clock; nil: the run's own outputs
	detached  []int                      // units that some step begins as runs of their own
	children  children
	kept      time.Time // when it was put last, for a submission; zero: not by this process
}

func newProgram(plan *pipeline.Plan) (*program, error) {
	p := &program{plan: plan, templates: make([]*expr.Template, plan.Templates), impure: map[*pipeline.StepDef]bool{}}
	c := compiler{p: p, units: make([]bool, len(plan.Units))}
	if k := plan.Settings.Concurrency; k != nil {
		c.template(&k.Key)
	}
	c.entries(plan.Vars)
	c.servers(plan.MCPServers)
	c.impure = false
	c.entries(plan.Outputs)
	p.impure[nil] = c.impure
	for i, u := range plan.Units {
		c.impure = false
		c.entries(u.Vars)
		c.entries(u.Outputs)
		c.units[i] = c.impure
		c.servers(u.MCPServers)
	}
	c.body(&plan.Root)
	c.body(&plan.Finally)
	for _, u := range plan.Units {
		c.body(&u.Root)
		c.body(&u.Finally)
	}
	return p, c.err
}

// compiler walks a plan once.
type compiler struct {
	p      *program
	units  []bool // by index: the vars or outputs of the unit are impure
	impure bool
	err    error
}

func (c *compiler) template(t *pipeline.Template) {
	if t == nil || c.err != nil {
		return
	}
	if t.ID < 0 || t.ID >= len(c.p.templates) {
		c.err = fmt.Errorf("compile plan %s: template %d of %d", c.p.plan.ID, t.ID, len(c.p.templates))
		return
	}
	compile := expr.Compile
	if t.Condition {
		compile = expr.CompileCondition
	}
	x, err := compile(t.Src)
	if err != nil {
		c.err = fmt.Errorf("compile plan %s: line %d: %w", c.p.plan.ID, t.Pos.Line, err)
		return
	}
	c.p.templates[t.ID] = x
	c.impure = c.impure || x.Impure()
	for _, a := range t.Autos {
		c.auto(a)
	}
}

func (c *compiler) auto(a *pipeline.Auto) {
	if a == nil {
		return
	}
	c.template(a.Prompt)
	c.field(a.Fallback)
}

func (c *compiler) field(f *pipeline.Field) {
	if f == nil {
		return
	}
	c.template(f.Template)
	c.fields(f.List)
	c.entries(f.Map)
}

func (c *compiler) fields(list []pipeline.Field) {
	for i := range list {
		c.field(&list[i])
	}
}

func (c *compiler) entries(list []pipeline.Entry) {
	for i := range list {
		c.field(&list[i].Value)
	}
}

func (c *compiler) body(b *pipeline.Body) {
	for _, s := range b.Steps {
		c.impure = false
		c.template(s.Condition)
		c.entries(s.State)
		c.entries(s.Set)
		c.work(s)
		c.control(s)
		if c.impure {
			c.p.impure[s] = true
		}
		if s.Loop != nil {
			c.body(&s.Loop.Body)
		}
		for i := range s.Branches {
			c.body(&s.Branches[i].Body)
		}
	}
}

// work takes the fields of what runs on the pool. Files, artifacts and earlier
// results are looked for before it starts.
func (c *compiler) work(s *pipeline.StepDef) {
	c.auto(s.ActionAuto)
	c.entries(s.Parameters)
	c.field(s.Prompt)
	c.field(s.Model)
	c.fields(s.Command)
	c.field(s.Run)
	c.entries(s.Env)
	c.agent(s.Agent)
	if s.Returns != nil {
		c.field(s.Returns.File)
	}
	c.fields(s.Artifacts)
	if s.Files != nil {
		c.fields(s.Files.Required)
		c.fields(s.Files.Optional)
		c.impure = true
	}
	if s.Cache != nil {
		c.field(s.Cache.Key)
		c.impure = true
	}
	c.impure = c.impure || len(s.Consume) > 0
}

// agent takes the fields of an agent, of its tools, and of the agents that it
// comes to by them.
func (c *compiler) agent(a *pipeline.Agent) {
	if a == nil {
		return
	}
	c.fields(a.Command)
	c.field(a.Instructions)
	c.field(a.Model)
	for i := range a.Tools {
		t := &a.Tools[i]
		if t.Gate != nil {
			c.template(t.Gate.When)
		}
		c.entries(t.Env)
		c.fields(t.Command)
		if h := t.HTTP; h != nil {
			c.field(&h.URL)
			c.entries(h.Headers)
			c.field(h.Body)
		}
		if p := t.Pipeline; p != nil {
			c.entries(p.With)
			c.impure = c.impure || c.units[p.Unit]
			if !slices.Contains(c.p.detached, p.Unit) {
				c.p.detached = append(c.p.detached, p.Unit) // it is a run of its own
			}
		}
	}
	for i := range a.Agents {
		c.agent(&a.Agents[i])
	}
}

// servers takes the fields of MCP servers.
func (c *compiler) servers(list []pipeline.MCPServer) {
	for i := range list {
		s := &list[i]
		c.fields(s.Command)
		c.entries(s.Env)
		c.field(s.URL)
		c.entries(s.Headers)
	}
}

// control takes the fields of control flow.
func (c *compiler) control(s *pipeline.StepDef) {
	c.template(s.Assert)
	for i := range s.OnError {
		c.field(s.OnError[i].Value)
	}
	if w := s.Wait; w != nil {
		c.field(w.For)
		c.field(w.Until)
		c.field(w.Signal)
		c.field(w.Files)
		c.impure = c.impure || w.Files != nil // it looks for them
	}
	if a := s.Ask; a != nil {
		c.field(&a.Question)
		c.field(a.Choices)
		c.field(a.Default)
		c.field(a.Assignees)
	}
	if s.Call != nil {
		c.entries(s.Call.With)
		c.impure = c.impure || c.units[s.Call.Unit]
		if s.Call.Detach && !slices.Contains(c.p.detached, s.Call.Unit) {
			c.p.detached = append(c.p.detached, s.Call.Unit)
		}
	}
	if s.Compete != nil && s.Compete.Ledger != nil {
		c.field(s.Compete.Ledger)
		c.impure = true // it is written
	}
	if s.Loop != nil {
		c.field(s.Loop.Items)
		c.template(s.Loop.Collect)
		c.template(s.Loop.Condition)
		c.template(s.Loop.Until)
		c.entries(s.Loop.Exhausted)
	}
	c.field(s.Match)
	for i := range s.Branches {
		c.template(s.Branches[i].Condition)
	}
}

// evaluation evaluates fields of one run in one scope.
type evaluation struct {
	prog  *program
	scope pipeline.Scope
	extra expr.MapScope // further names, which come first; nil: none
	tags  tagBook       // fills in <AUTO> tags; nil: there are none
	dir   string        // the workspace; empty: file functions are refused
	now   func() time.Time
}

// with is the evaluation with one more name.
func (ev evaluation) with(name string, v any) evaluation {
	extra := maps.Clone(ev.extra)
	if extra == nil {
		extra = expr.MapScope{}
	}
	extra[name] = v
	ev.extra = extra
	return ev
}

// Lookup finds a name.
func (ev evaluation) Lookup(name string) (any, bool) {
	if v, ok := ev.extra[name]; ok {
		return v, true
	}
	return ev.scope.Lookup(name)
}

// eval evaluates a template, its <AUTO> tags first.
func (ev evaluation) eval(t *pipeline.Template, what string) (any, *pipeline.Failure) {
	ev, fail := ev.answered(t, what)
	if fail != nil {
		return nil, fail
	}
	v, err := ev.prog.templates[t.ID].Eval(ev.env())
	if err != nil {
		return nil, ev.failure(t, what, err)
	}
	return v, nil
}

func (ev evaluation) env() *expr.Env {
	return &expr.Env{Scope: ev, Host: expr.Host{
		Now:         ev.now,
		ListFiles:   ev.listFiles,
		FileExists:  ev.fileExists,
		IncludeFile: ev.includeFile,
		Collect: func() (any, error) {
			if l, ok := ev.scope.Results(); ok {
				if l == nil {
					l = []any{}
				}
				return l, nil
			}
			return nil, errors.New("collect_results() stands outside a loop")
		},
	}}
}

// failure turns an evaluation error into a step failure at its place.
func (ev evaluation) failure(t *pipeline.Template, what string, err error) *pipeline.Failure {
	f := &pipeline.Failure{
		Kind: pipeline.CategoryValidation, Reason: "expression",
		Message: fmt.Sprintf("%s: %v", what, err), Line: t.Pos.Line, Column: t.Pos.Column,
	}
	if e, ok := errors.AsType[*expr.Error](err); ok {
		f.Message = fmt.Sprintf("%s: %s", what, e.Text)
		if e.Hint != "" {
			f.Message += " (" + e.Hint + ")"
		}
	}
	if t.Pos.Line > 0 {
		f.Message += fmt.Sprintf(" (line %d)", t.Pos.Line)
	}
	return f
}

// field evaluates a value of the document.
func (ev evaluation) field(f *pipeline.Field, what string) (any, *pipeline.Failure) {
	switch {
	case f.Template != nil:
		return ev.eval(f.Template, what)
	case f.List != nil:
		list := make([]any, len(f.List))
		for i := range f.List {
			v, fail := ev.field(&f.List[i], fmt.Sprintf("%s[%d]", what, i))
			if fail != nil {
				return nil, fail
			}
			list[i] = v
		}
		return list, nil
	case f.Map != nil:
		m, fail := ev.entries(f.Map, what)
		if fail != nil {
			return nil, fail
		}
		return m, nil
	case f.Empty == "list":
		return []any{}, nil
	case f.Empty == "map":
		return map[string]any{}, nil
	}
	return f.Const, nil
}

// entries evaluates named values, in the order of the source.
func (ev evaluation) entries(list []pipeline.Entry, what string) (map[string]any, *pipeline.Failure) {
	m := make(map[string]any, len(list))
	for i := range list {
		name := list[i].Name
		if what != "" {
			name = what + "." + name
		}
		v, fail := ev.field(&list[i].Value, name)
		if fail != nil {
			return nil, fail
		}
		m[list[i].Name] = v
	}
	return m, nil
}

// vars evaluates those of a pipeline, one after the other: each sees the ones
// before it.
func (ev evaluation) vars(list []pipeline.Entry) (map[string]any, *pipeline.Failure) {
	m := make(map[string]any, len(list))
	ev = ev.with("vars", m)
	for i := range list {
		v, fail := ev.field(&list[i].Value, "vars."+list[i].Name)
		if fail != nil {
			return nil, fail
		}
		m[list[i].Name], ev.extra[list[i].Name] = v, v
	}
	return m, nil
}

// test evaluates a condition.
func (ev evaluation) test(t *pipeline.Template, what string) (bool, *pipeline.Failure) {
	ev, fail := ev.answered(t, what)
	if fail != nil {
		return false, fail
	}
	ok, err := ev.prog.templates[t.ID].Test(ev.env())
	if err != nil {
		return false, ev.failure(t, what, err)
	}
	return ok, nil
}

// collect evaluates a loop's collect expression.
func (ev evaluation) collect(t *pipeline.Template) (any, *pipeline.Failure) {
	return ev.eval(t, "collect")
}

// The limits of file functions in templates.
const (
	maxListed   = 100_000
	maxIncluded = 1 << 20
)

var errNoWorkspace = errors.New("files cannot be read here: there is no workspace yet")

// root opens the workspace. Nothing read through it can leave it.
func (ev evaluation) root() (*os.Root, error) {
	if ev.dir == "" {
		return nil, errNoWorkspace
	}
	return os.OpenRoot(ev.dir)
}

// local makes a template's path relative to the workspace.
func (ev evaluation) local(name string) (string, error) {
	if path.IsAbs(name) {
		rest, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(ev.dir, "/")+"/")
		if !ok {
			return "", fmt.Errorf("%s is outside the workspace", name)
		}
		name = rest
	}
	name = path.Clean(name)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", fmt.Errorf("%s is outside the workspace", name)
	}
	return name, nil
}

// listFiles lists the files of a folder, or those that a pattern matches,
// sorted. A folder's listing is flat; "**" in a pattern crosses folders.
func (ev evaluation) listFiles(pattern string) ([]string, error) {
	root, err := ev.root()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name, err := ev.local(pattern)
	if err != nil {
		return nil, err
	}
	fsys := root.FS()
	dir, match := name, func(string) bool { return true }
	deep := false
	if i := strings.IndexAny(name, "*?["); i >= 0 {
		dir = path.Dir(name[:i] + "x")
		segments := strings.Split(name, "/")
		match = func(file string) bool { return matchSegments(segments, strings.Split(file, "/")) }
		deep = strings.Contains(name[len(dir):], "/") || dir == "."
	}
	prefix := ""
	if strings.HasPrefix(pattern, "./") {
		prefix = "./"
	}
	var files []string
	err = fs.WalkDir(fsys, dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			if file == dir {
				return noFolder(dir)
			}
			return nil
		}
		if d.IsDir() {
			if file != dir && !deep {
				return fs.SkipDir
			}
			return nil
		}
		if match(file) {
			if len(files) >= maxListed {
				return fmt.Errorf("more than %d files match %s", maxListed, pattern)
			}
			files = append(files, prefix+file)
		}
		return nil
	})
	sort.Strings(files)
	return files, err
}

// noFolder is the error of a folder that the workspace does not have.
type noFolder string

func (n noFolder) Error() string { return "there is no folder " + string(n) + " in the workspace" }

// Is makes it one of the errors about files that do not exist.
func (noFolder) Is(target error) bool { return target == fs.ErrNotExist }

// matchSegments matches a path against a pattern; "**" stands for any number
// of folders.
func matchSegments(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if matchSegments(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}

func (ev evaluation) fileExists(name string) (bool, error) {
	root, err := ev.root()
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }()
	if name, err = ev.local(name); err != nil {
		return false, err
	}
	_, err = root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (ev evaluation) includeFile(name string) (string, error) {
	root, err := ev.root()
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if name, err = ev.local(name); err != nil {
		return "", err
	}
	info, err := root.Stat(name)
	if err != nil {
		return "", fmt.Errorf("there is no file %s in the workspace", name)
	}
	if info.Size() > maxIncluded {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxIncluded)
	}
	b, err := root.ReadFile(name)
	return string(b), err
}
