package tool

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// Names of the tools of agents that have skills.
const (
	LoadSkill     = "load_skill"
	ReadSkillFile = "read_skill_file"
	RunSkill      = "run_skill"
)

const (
	skillTime  = 5 * time.Minute // of one run, as of a step's
	skillOut   = 1 << 20         // bytes of a result
	skillFile  = 4 << 20         // bytes of a file that is read
	skillAbout = 500             // bytes of a description in a list
	skillFiles = 200             // names in a list
)

// Skills tells an agent which skills it has: their names and what they are for.
// The rest comes with load_skill. Empty: it has none.
func Skills(a *pipeline.Agent) string {
	if len(a.Skills) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("## Skills\nYou have these skills. Load one with " + LoadSkill + " before you do what it is for:\n")
	for i := range a.Skills {
		about := strings.Join(strings.Fields(a.Skills[i].Description), " ")
		if len(about) > skillAbout {
			about = strings.ToValidUTF8(about[:skillAbout], "") + "..."
		}
		fmt.Fprintf(&b, "- %s: %s\n", a.Skills[i].Name, about)
	}
	return strings.TrimRight(b.String(), "\n")
}

// skills are the tools of an agent that has some.
func (s *source) skills(a *pipeline.Agent, b *box) []Tool {
	if len(a.Skills) == 0 {
		return nil
	}
	var names, programs []any
	for i := range a.Skills {
		names = append(names, a.Skills[i].Name)
		if runs(&a.Skills[i]) {
			programs = append(programs, a.Skills[i].Name)
		}
	}
	of := func(list []any, more map[string]any, required ...any) map[string]any {
		props := map[string]any{"name": map[string]any{"type": "string", "enum": list, "description": "the name of the skill"}}
		maps.Copy(props, more)
		return map[string]any{"type": "object", "additionalProperties": false, "required": append([]any{"name"}, required...), "properties": props}
	}
	tools := []Tool{{
		Name: LoadSkill, Effect: pipeline.EffectPure,
		Description: "Loads a skill: what it says you should do, what it takes and gives, and the files that it comes with.",
		Schema:      of(names, nil),
		Run: func(_ context.Context, env executor.Env, c Call) (Result, error) {
			return loadSkill(env, skillOf(a, c), b)
		},
	}, {
		Name: ReadSkillFile, Effect: pipeline.EffectPure,
		Description: "Reads a file that a skill comes with.",
		Schema:      of(names, map[string]any{"path": map[string]any{"type": "string", "minLength": int64(1), "description": "the file, as load_skill lists it"}}, "path"),
		Run: func(_ context.Context, env executor.Env, c Call) (Result, error) {
			name, _ := c.Arguments["path"].(string)
			text, err := readSkill(env, skillOf(a, c), name)
			return Text(text), err
		},
	}}
	if programs == nil {
		return tools
	}
	return append(tools, Tool{
		Name: RunSkill, Effect: pipeline.EffectAtMostOnce, Timeout: skillTime,
		Description: "Runs the program of a skill in the workspace and gives its result. Load the skill first: it says which parameters it takes.",
		Schema:      of(programs, map[string]any{"parameters": map[string]any{"type": "object", "default": map[string]any{}, "description": "the parameters of the skill by name"}}),
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			return s.runSkill(ctx, env, skillOf(a, c), c)
		},
	})
}

// runs reports whether a skill has a program.
func runs(s *pipeline.Skill) bool { return s.Command != nil || s.Run != "" }

// skillOf is the skill that a call names; its schema allows no other name.
func skillOf(a *pipeline.Agent, c Call) *pipeline.Skill {
	name, _ := c.Arguments["name"].(string)
	i := slices.IndexFunc(a.Skills, func(s pipeline.Skill) bool { return s.Name == name })
	return &a.Skills[max(i, 0)]
}

// openSkill opens the folder of a skill, which has travelled with the pipeline.
func openSkill(env executor.Env, s *pipeline.Skill) (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Join(env.Bundle, filepath.FromSlash(s.Dir)))
	if err != nil || env.Bundle == "" {
		return nil, fmt.Errorf("the files of the skill %s are not here", s.Name)
	}
	return root, nil
}

// loadSkill tells all that an agent has to know of a skill.
func loadSkill(env executor.Env, s *pipeline.Skill, b *box) (Result, error) {
	text, err := readSkill(env, s, "SKILL.md")
	if err != nil {
		return Result{}, err
	}
	m, err := spec.ParseSkill("SKILL.md", []byte(text))
	if err != nil {
		return Result{}, err
	}
	out := []string{"# " + s.Name, s.Description, m.Body}
	if runs(s) {
		out = append(out, "Run it with "+RunSkill+".\n"+fieldsText("It takes", s.Parameters, s.Open))
		if s.Returns == nil {
			out = append(out, "It gives a JSON value.")
		} else if len(s.Returns.Properties) > 0 {
			out = append(out, fieldsText("It gives", s.Returns.Properties, false))
		} else {
			out = append(out, "It gives "+spec.TypeText(s.Returns)+".")
		}
	}
	var lacks []string
	for _, name := range m.Tools {
		if b.Find(name) == nil {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) > 0 {
		out = append(out, "It was written for tools that you do not have, and must do without: "+strings.Join(lacks, ", ")+".")
	}
	files, err := skillList(env, s)
	if err != nil {
		return Result{}, err
	}
	if files != "" {
		out = append(out, "Its files, which "+ReadSkillFile+" reads:\n"+files)
	}
	return Text(strings.Join(slices.DeleteFunc(out, func(s string) bool { return s == "" }), "\n\n")), nil
}

// fieldsText lists parameters or results with their types.
func fieldsText(what string, list []pipeline.Property, open bool) string {
	var b strings.Builder
	switch {
	case len(list) == 0 && open:
		return what + " any parameters."
	case len(list) == 0:
		return what + " none."
	}
	b.WriteString(what + ":")
	for i := range list {
		p := &list[i]
		fmt.Fprintf(&b, "\n- %s: %s", p.Name, spec.TypeText(&p.Type))
		switch {
		case p.Default != nil:
			b.WriteString(", default " + string(pipeline.EncodeValue(p.Default)))
		case !p.Required:
			b.WriteString(", may be left out")
		}
		if doc := cmp.Or(p.Doc, p.Type.Description); doc != "" {
			b.WriteString("; " + strings.Join(strings.Fields(doc), " "))
		}
	}
	return b.String()
}

// skillList lists the files of a skill besides its manual.
func skillList(env executor.Env, s *pipeline.Skill) (string, error) {
	root, err := openSkill(env, s)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	var b strings.Builder
	n := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() || name == "SKILL.md":
			return nil
		}
		if n++; n <= skillFiles {
			b.WriteString("- " + name + "\n")
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("the files of the skill %s cannot be listed", s.Name)
	}
	if n > skillFiles {
		fmt.Fprintf(&b, "- and %d more\n", n-skillFiles)
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

// readSkill reads a text of a skill's folder.
func readSkill(env executor.Env, s *pipeline.Skill, name string) (string, error) {
	root, err := openSkill(env, s)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	name = path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%s is not a file of the skill %s", name, s.Name)
	}
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", fmt.Errorf("the skill %s has no file %s", s.Name, name)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s of the skill %s is not a file", name, s.Name)
	}
	data, err := io.ReadAll(io.LimitReader(f, skillFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the file %s of the skill %s cannot be read", name, s.Name)
	case len(data) > skillFile:
		return "", fmt.Errorf("the file %s of the skill %s is larger than %d MiB", name, s.Name, skillFile>>20)
	case !utf8.Valid(data):
		return "", fmt.Errorf("the file %s of the skill %s is no text (%d bytes)", name, s.Name, len(data))
	}
	return string(data), nil
}

// runSkill runs the program of a skill, in a sandbox: the step's own, or else the
// one that its manual asks for.
func (s *source) runSkill(ctx context.Context, env executor.Env, k *pipeline.Skill, c Call) (Result, error) {
	given, _ := c.Arguments["parameters"].(map[string]any)
	if given == nil {
		given = map[string]any{}
	}
	params, wrong := spec.Conform(&pipeline.Type{Kind: "map", Properties: k.Parameters, Additional: k.Open}, given)
	if wrong != nil {
		return failed(Result{}, fmt.Sprintf("the parameters do not suit the skill %s: %s", k.Name, violations(wrong))), nil
	}
	dir := filepath.Join(env.Bundle, filepath.FromSlash(k.Dir))
	argv := []string{"/bin/sh", "-c", k.Run}
	if k.Run == "" {
		argv = slices.Clone(k.Command)
		for i, arg := range argv {
			if name, ok := strings.CutPrefix(arg, "./"); ok {
				argv[i] = filepath.Join(dir, filepath.FromSlash(name))
			}
		}
	}
	environ := append(slices.Clone(env.Environ), "ORCHESTRATOR_SKILL_DIR="+dir, "ORCHESTRATOR_IDEMPOTENCY_KEY="+env.IdempotencyKey())
	if err := env.MakeWorkspace(); err != nil {
		return Result{}, err
	}
	ran, err := s.cfg.Sandbox.Run(ctx, cmp.Or(env.Sandbox, k.Sandbox), sandbox.Spec{Workspace: env.Workspace, Readable: []string{env.Bundle}},
		sandbox.Program{Argv: argv, Environ: environ, Dir: env.Workspace}, string(pipeline.EncodeValue(params)), skillOut)
	if ran.Stderr != "" {
		env.Log("stderr", ran.Stderr)
	}
	said := Result{}
	if text := strings.TrimSpace(ran.Stderr); text != "" {
		said = Text(text)
	}
	switch {
	case err != nil:
		return said, err
	case ran.Exit.Limit != "":
		return failed(said, "[ended: it took more "+ran.Exit.Limit+" than it may]"), nil
	case ran.Exit.Code != 0:
		return failed(said, fmt.Sprintf("[the skill %s failed with exit code %d]", k.Name, ran.Exit.Code)), nil
	case ran.Cut:
		return failed(said, fmt.Sprintf("[the skill %s wrote more than %d MiB]", k.Name, skillOut>>20)), nil
	}
	v, err := pipeline.DecodeValue([]byte(ran.Stdout))
	if err != nil {
		return failed(Text(ran.Stdout), fmt.Sprintf("[the skill %s gave no JSON]", k.Name)), nil //nolint:nilerr // the model reads it
	}
	if k.Returns != nil {
		if v, wrong = spec.Conform(k.Returns, v); wrong != nil {
			return failed(Value(v), fmt.Sprintf("[the skill %s gave what its manual does not promise: %s]", k.Name, violations(wrong))), nil
		}
	}
	return Value(v), nil
}

func violations(list []spec.Violation) string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = cmp.Or(list[i].Path, "it") + " " + list[i].Text
	}
	return strings.Join(texts, "; ")
}
