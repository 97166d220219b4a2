package step

import (
	"context"
	"errors"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const parseCodeDoc = `Reads source code and gives its structure: functions, types, imports, comments.

    - id: code_parsing
      action: parse_code
      parameters: {source: src, languages: [go, python]}

source is a file or folder of the workspace, a pattern such as "src/**/*.py", the code itself (a text of several lines), or a list of them. An address is refused: fetch it before. Of a folder all files of known languages are read, but not those below hidden folders, node_modules, vendor, venv, site-packages and __pycache__. languages narrows what is read; it may be a list or any text that names some.

Go and Python are understood. A file of another language is listed with supported: false and a note; nothing is guessed. A file that does not parse is listed with errors.

parsed_code.files holds for each file: path, language, supported, note, lines, source (the text), functions (name, class, line, end_line, params, complexity, async, documented), types (name, kind, line, end_line, bases, documented), imports (module, name, alias, line), comments (line, text), errors (line, message). class is the type that a method belongs to; complexity is cyclomatic. A file has at most 1 MiB (a larger one is listed with a note), all together 8 MiB and 2000 files; the whole value has at most 16 MiB.`

// ParseCode names the source.
type ParseCode struct {
	Source    any `param:"required" doc:"a file, a folder, a pattern, the code itself, or a list of them"`
	Languages any `doc:"read only these: a list, or a text that names them"`
}

type parseResult struct {
	ParsedCode map[string]any `doc:"files, languages (how many files of each), errors (path, line, message)"`
}

func parseCodeAction() executor.Action {
	return executor.NewAction[ParseCode](executor.Describe{
		Name: "parse_code", Doc: parseCodeDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: parseResult{},
	})
}

// parsedFile is a file with what its parser found. Exactly one of golang and
// python is set where supported.
type parsedFile struct {
	sourceFile
	golang    *goModule
	python    *pyModule
	functions []codeFunction
	types     []codeType
	imports   []pyImport
	comments  []codeComment
	errors    []codeError
}

func (f *parsedFile) supported() bool { return f.golang != nil || f.python != nil }

type codeFunction struct {
	name       string
	class      string // the type that it is a method of; empty: none
	line       int
	endLine    int
	params     []string
	async      bool
	documented bool
	cyclomatic int
	cognitive  int
	nesting    int
	outer      bool // it stands alone: of Python, in the module or in a class of it
}

// fullName is the name with the type's.
func (f *codeFunction) fullName() string {
	if f.class == "" {
		return f.name
	}
	return f.class + "." + f.name
}

type codeType struct {
	name       string
	kind       string // class; of Go: struct, interface, alias or type
	line       int
	endLine    int
	bases      []string
	documented bool
}

type codeComment struct {
	line int
	text string
}

// parseFile reads the structure of a file, as far as its language is understood.
func parseFile(f sourceFile) *parsedFile {
	p := &parsedFile{sourceFile: f}
	if f.note != "" {
		return p
	}
	var err error
	switch f.language {
	case "go":
		err = parseGo(p)
	case "python":
		err = parsePython(p)
	}
	if e, ok := errors.AsType[*codeError](err); ok {
		p.errors = append(p.errors, *e)
	}
	return p
}

// parseCode reads and parses what a parameter names.
func parseCode(ctx context.Context, env executor.Env, param string, v any, languages []string) ([]*parsedFile, error) {
	files, err := readCode(ctx, env, param, v, languages)
	if err != nil {
		return nil, err
	}
	parsed := make([]*parsedFile, len(files))
	for i, f := range files {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		parsed[i] = parseFile(f)
	}
	return parsed, nil
}

func parsePython(f *parsedFile) error {
	m, err := pyParse(f.text)
	if err != nil {
		return err
	}
	f.python = m
	for _, c := range m.comments {
		f.comments = append(f.comments, codeComment{c.line, strings.TrimSpace(strings.TrimLeft(c.text, "#"))})
	}
	var visit func(list []*pyStatement, class string, outer bool)
	visit = func(list []*pyStatement, class string, outer bool) {
		for _, s := range list {
			f.imports = append(f.imports, s.imports()...)
			switch s.kind {
			case "def":
				fn := codeFunction{
					name: s.name, class: class, line: s.line, endLine: s.endLine, async: s.async, documented: pyDocstring(s.body) != nil,
					cyclomatic: pyCyclomatic(s.body), cognitive: pyCognitiveFunction(s, 0), nesting: pyDepth(s.body), outer: outer,
				}
				for _, p := range s.params() {
					fn.params = append(fn.params, p.name)
				}
				f.functions = append(f.functions, fn)
				visit(s.body, "", false)
			case "class":
				name := s.name
				if class != "" {
					name = class + "." + name
				}
				f.types = append(f.types, codeType{
					name: name, kind: "class", line: s.line, endLine: s.endLine, bases: s.bases(), documented: pyDocstring(s.body) != nil,
				})
				visit(s.body, name, outer)
			default:
				visit(s.body, class, false)
			}
		}
	}
	visit(m.body, "", true)
	return nil
}

// Run parses, and keeps the sources for the steps that follow.
func (c ParseCode) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	files, err := parseCode(ctx, env, "source", c.Source, namedLanguages(c.Languages))
	if err != nil {
		return executor.Output{}, err
	}
	list, faults, languages := make([]any, len(files)), []any{}, map[string]any{}
	for i, f := range files {
		list[i] = f.value()
		if f.language != "" {
			n, _ := languages[f.language].(int64)
			languages[f.language] = n + 1
		}
		for _, e := range f.errors {
			faults = append(faults, map[string]any{"path": f.path, "line": int64(e.line), "message": e.text})
		}
	}
	v := map[string]any{"parsed_code": map[string]any{"files": list, "languages": languages, "errors": faults}}
	if n := len(pipeline.EncodeValue(v)); n > maxValue {
		return executor.Output{}, tooLarge("the parsed code has %s; a step gives at most %s: name a part of it", size(int64(n)), size(maxValue))
	}
	return executor.Output{Value: v}, nil
}

// value is the file as it travels between steps.
func (f *parsedFile) value() map[string]any {
	functions, types, imports, comments, faults := []any{}, []any{}, []any{}, []any{}, []any{}
	for _, x := range f.functions {
		functions = append(functions, map[string]any{
			"name": x.name, "class": x.class, "line": int64(x.line), "end_line": int64(x.endLine), "params": anyList(x.params),
			"complexity": int64(x.cyclomatic), "async": x.async, "documented": x.documented,
		})
	}
	for _, x := range f.types {
		types = append(types, map[string]any{
			"name": x.name, "kind": x.kind, "line": int64(x.line), "end_line": int64(x.endLine), "bases": anyList(x.bases), "documented": x.documented,
		})
	}
	for _, x := range f.imports {
		imports = append(imports, map[string]any{"module": x.module, "name": x.name, "alias": x.alias, "line": int64(x.line)})
	}
	for _, x := range f.comments {
		comments = append(comments, map[string]any{"line": int64(x.line), "text": x.text})
	}
	for _, x := range f.errors {
		faults = append(faults, map[string]any{"line": int64(x.line), "message": x.text})
	}
	v := map[string]any{
		"path": f.path, "language": f.language, "supported": f.supported(), "lines": int64(countLines(f.text)), "source": f.text,
		"functions": functions, "types": types, "imports": imports, "comments": comments, "errors": faults, "note": f.note,
	}
	if f.language == "" {
		v["language"] = nil
	}
	return v
}

// countLines counts a last line without an end too.
func countLines(text string) int {
	n := strings.Count(text, "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		n++
	}
	return n
}
