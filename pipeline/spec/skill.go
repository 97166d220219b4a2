package spec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// SkillFile is what a SKILL.md says.
type SkillFile struct {
	pipeline.Skill          // without its folder
	Inactive       bool     // it may not be used
	Tools          []string // that it uses
	License        string
	Compatibility  string
	Body           string // its text, which a model is given that uses it
}

// ParseSkill reads a SKILL.md: front matter in YAML between two lines of ---,
// and the text of the skill. The error is a *pipeline.Diagnostics.
func ParseSkill(file string, text []byte) (*SkillFile, error) {
	t, bad := newText(file, string(text))
	found := newFindings(t)
	if bad != nil {
		found.error(*bad)
		return nil, found.diagnostics()
	}
	s := newCompiler(t, found, newCatalog(pipeline.Catalog{}), nil).skillFile()
	if s == nil || found.errs > 0 {
		return nil, found.diagnostics()
	}
	return s, nil
}

var (
	skillName   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	frontMatter = regexp.MustCompile(`^---[ \t]*\n(?s:.*?\n)??---[ \t]*(?:\n|$)`)
)

// skillFile reads the compiler's text as a SKILL.md. It returns nil where
// nothing could be made of it.
func (c *compiler) skillFile() *SkillFile {
	head := frontMatter.FindString(c.text.src)
	if head == "" {
		c.error(fault{code: "E0101", at: span{0, 1}, msg: "a SKILL.md begins with front matter", hint: "YAML with name and description between two lines of ---"}, where{})
		return nil
	}
	front := strings.TrimRight(head, " \t\n")
	front = strings.TrimSuffix(front, "---")
	l := &loader{text: lines(c.text.file, front), found: c.found}
	n := l.document()
	if n == nil {
		return nil
	}
	if n.kind != mapping {
		c.error(fault{code: "E0103", at: n.at, msg: "the front matter is a mapping with name and description, not " + n.what()}, where{})
		return nil
	}
	w := where{}
	f := c.fields(n, inSkill, w)
	s := &SkillFile{}
	for _, must := range []string{"name", "description"} {
		if f.get(must) == nil {
			c.error(fault{code: "E0111", at: n.at, msg: "the front matter has no " + must}, w)
		}
	}
	s.Name = strings.TrimSpace(c.inert(f.get("name"), w.in("name")))
	if v := f.get("name"); v != nil && !skillName.MatchString(s.Name) {
		c.error(fault{code: "E0113", at: v.at, msg: fmt.Sprintf("%q cannot be a skill's name", s.Name), hint: "small letters, digits, - and _; at most 64"}, w.in("name"))
	}
	s.Description = strings.TrimSpace(c.inert(f.get("description"), w.in("description")))
	s.License = c.inert(f.get("license"), w.in("license"))
	s.Compatibility = c.inert(f.get("compatibility"), w.in("compatibility"))
	s.Tools, _ = c.names(f.get("tools"), w.in("tools"))
	if v := f.get("active"); v != nil {
		s.Inactive = !c.boolean(v, w.in("active"))
	}
	if v := f.get("parameters"); v == nil || v.isNull() {
		s.Open = true
	} else {
		s.Parameters = c.propertiesOf(v, w.in("parameters"))
	}
	if v := f.get("returns"); v != nil && !v.isNull() {
		s.Returns = c.resultType(v, w.in("returns"))
	}
	if v := f.get("run"); v != nil {
		c.skillRun(v, s, w.in("run"))
	}
	if v := f.get("sandbox"); v != nil {
		s.Sandbox = c.sandbox(v, w.in("sandbox"))
	}
	s.Body = strings.TrimSpace(c.text.src[len(head):])
	if s.Command == nil && s.Run == "" {
		s.Prompt = s.Body
		if s.Prompt == "" && f.get("run") == nil {
			c.error(fault{code: "E0111", at: n.at, msg: "the skill has neither run nor a text that a model could follow"}, w)
		}
	}
	return s
}

// skillRun reads how a skill is carried out. Its parameters are not put into the
// line: the program reads them as JSON.
func (c *compiler) skillRun(n *node, s *SkillFile, w where) {
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	for _, item := range items {
		switch {
		case item.kind != scalar || item.isNull() || strings.TrimSpace(item.text) == "":
			c.wrong(item, w, "a line for the shell, or a program with its arguments")
			return
		case templated(item.text):
			c.error(fault{code: "E0104", at: item.at, msg: "what a skill runs is fixed and cannot be a template", hint: "the program reads the parameters as JSON from its standard input"}, w)
			return
		}
	}
	switch {
	case n.kind != list:
		s.Run = n.text
	case len(items) == 0:
		c.error(fault{code: "E0104", at: n.at, msg: "run names no program"}, w)
	default:
		for _, item := range items {
			s.Command = append(s.Command, item.text)
		}
	}
}

// propertiesOf reads a mapping from names to types.
func (c *compiler) propertiesOf(n *node, w where) []pipeline.Property {
	if n.isNull() {
		return nil
	}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to types")
		return nil
	}
	var list []pipeline.Property
	for i := range n.pairs {
		p := &n.pairs[i]
		list = append(list, c.property(p.name, p.value, w.in(p.name)))
	}
	return list
}

// resultType reads what something gives: fields with their types, or one type.
func (c *compiler) resultType(n *node, w where) *pipeline.Type {
	if n.kind == mapping && !declared(n) {
		return &pipeline.Type{Kind: "map", Properties: c.propertiesOf(n, w)}
	}
	t := c.property("returns", n, w).Type
	return &t
}

// skillFolder is where skills are found, beside a pipeline.
const skillFolder = "skills"

// skill reads a step that uses a skill.
func (c *compiler) skill(f *fields, s *step) {
	d := s.def
	w := where{step: s}
	d.Kind, d.Effect = pipeline.KindSkill, pipeline.EffectAtLeastOnce
	n := f.get("skill")
	name, ok := c.word(n, w.in("skill"))
	var spec *pipeline.ActionSpec
	if ok {
		if file := c.skillNamed(n, name, w.in("skill")); file != nil {
			used := file.Skill
			d.Skill = &used
			spec = &pipeline.ActionSpec{Key: name, Name: name, Params: used.Parameters, Open: used.Open}
			s.returns = used.Returns
			if f.get("timeout") == nil && (used.Command != nil || used.Run != "") {
				d.Timeout = commandTimeout
			}
		}
	}
	d.Parameters = c.parameters(spec, f.get("parameters"), n, w)
	c.environment(f, s)
}

// skillNamed finds a skill in the bundle: beside the file that names it, or
// beside the whole pipeline. It returns nil after an error.
func (c *compiler) skillNamed(n *node, name string, w where) *SkillFile {
	if !skillName.MatchString(name) {
		c.error(fault{code: "E0113", at: n.at, msg: fmt.Sprintf("%q cannot be a skill's name", name), hint: "small letters, digits, - and _; at most 64"}, w)
		return nil
	}
	files := c.whole.files
	dir := path.Join(c.dir, skillFolder, name)
	if _, ok := files[dir+"/SKILL.md"]; !ok {
		dir = path.Join(skillFolder, name)
	}
	file := dir + "/SKILL.md"
	data, ok := files[file]
	if !ok {
		x := fault{code: "E0301", at: n.at, msg: fmt.Sprintf("there is no skill %q", name), hint: "skills are looked for in " + skillFolder + "/NAME/SKILL.md beside the pipeline, and then in your own skills folder"}
		if like := c.suggest(name, append(c.skills(), c.cat.skills...)); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
		c.error(x, w)
		return nil
	}
	s, read := c.whole.skills[file]
	if !read {
		s = c.readSkill(file, dir, name, data)
		if c.whole.skills == nil {
			c.whole.skills = map[string]*SkillFile{}
		}
		c.whole.skills[file] = s
	}
	if s != nil && s.Inactive {
		c.error(fault{code: "E0301", at: n.at, msg: fmt.Sprintf("the skill %s may not be used", name), hint: "its SKILL.md says active: false"}, w)
		return nil
	}
	return s
}

// skills lists the names of the skills in the bundle.
func (c *compiler) skills() []string {
	var names []string
	for file := range c.whole.files {
		dir, base := path.Split(file)
		dir = strings.TrimSuffix(dir, "/")
		if base == "SKILL.md" && path.Base(path.Dir(dir)) == skillFolder {
			names = append(names, path.Base(dir))
		}
	}
	slices.Sort(names)
	return names
}

// readSkill reads a SKILL.md of the bundle; nil after an error.
func (c *compiler) readSkill(file, dir, name string, data []byte) *SkillFile {
	t, bad := newText(c.whole.shown(file), string(data))
	found := newFindings(t)
	c.whole.findings = append(c.whole.findings, found)
	if bad != nil {
		found.error(*bad)
		return nil
	}
	sub := newCompiler(t, found, c.cat, c.whole)
	s := sub.skillFile()
	if s == nil || found.errs > 0 {
		return nil
	}
	if s.Name != name {
		off := max(strings.Index(t.src, s.Name), 0)
		found.error(fault{code: "E0113", at: span{off, off + len(s.Name)}, msg: fmt.Sprintf("the skill calls itself %s, but its folder is %s", s.Name, name), hint: "name and folder are the same"})
		return nil
	}
	s.Dir = dir
	return s
}

// shown is the name of a file of the bundle in messages.
func (p *program) shown(file string) string {
	return path.Join(path.Dir(strings.ReplaceAll(p.file, `\`, "/")), file)
}
