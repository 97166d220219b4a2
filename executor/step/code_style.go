package step

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const styleDoc = `Holds code against rules of style and gives what violates them. Go and Python are looked at.

    - id: style_check
      action: style_analysis
      parameters: {code: "{{ code_parsing.parsed_code }}", style_guide: "PEP 8, lines of 100 characters"}

code is what parse_code gives, or anything that parse_code takes. style_guide is a text. It decides how long a line may be: a number beside line, lines, characters or columns, else by a name in it (PEP 8: 79, Google: 80 in Python, Black: 88), else 79 in Python and 120 in Go; that of comments and code alike. The rest of it is not interpreted; guide tells what was used.

Of both: line-too-long, trailing-whitespace, mixed-indentation, no-final-newline, trailing-blank-lines, todo-comment, too-many-parameters (more than 7), syntax-error.
Of Go: not-formatted (gofmt), naming (underscores, receivers called this or self, differing receivers of a type), missing-doc (of what is exported, outside of tests and commands), doc-form (a comment that does not begin with the name), unused-import (of the standard library and where a name is given; others bind a name that cannot be known), dot-import, else-after-return, error-text (capitalized, or ending with a point), empty-block.
Of Python: naming (PEP 8: classes in CapWords, functions, methods and parameters in snake_case), missing-doc (of public modules, classes and functions), unused-import (not in __init__.py), star-import, import-form (several modules in one import), bare-except, mutable-default, none-comparison, bool-comparison, literal-identity (is with a text or number), lambda-assignment, several-statements, empty-f-string, ambiguous-name (l, O, I), assert-tuple.

severity is error, warning or info.`

// StyleAnalysis names the code and how long a line may be.
type StyleAnalysis struct {
	Code       any `param:"required" doc:"what parse_code gives, or a file, a folder, a pattern, the code itself, or a list of them"`
	StyleGuide any `doc:"a text; it decides how long a line may be"`
}

type styleResult struct {
	Violations []any          `doc:"maps with path, line, rule, severity, message; by path and line"`
	Summary    map[string]any `doc:"how many of each severity, and in all (total)"`
	Guide      map[string]any `doc:"what was used: guide (the text that was given), and the longest line (go, python)"`
	Skipped    []any          `doc:"files that were not looked at: path, reason"`
}

func styleAction() executor.Action {
	return executor.NewAction[StyleAnalysis](executor.Describe{
		Name: "style_analysis", Doc: styleDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: styleResult{},
	})
}

// finding is what a rule of style or security found.
type finding struct {
	path     string
	line     int
	rule     string
	severity string
	message  string
	cwe      string // of security: as in CWE-78
}

// findings collects what is found in one file.
type findings struct {
	path string
	list []finding
}

func (f *findings) add(line int, rule, severity, format string, args ...any) {
	f.list = append(f.list, finding{path: f.path, line: line, rule: rule, severity: severity, message: fmt.Sprintf(format, args...)})
}

// maxFindings is how many a step gives; the rest is counted.
const maxFindings = 10_000

// report brings findings into their order and form.
func report(list []finding, severities []string) (values []any, summary map[string]any) {
	slices.SortStableFunc(list, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.rule, b.rule))
	})
	values, summary = []any{}, map[string]any{"total": int64(len(list))}
	for _, s := range severities {
		summary[s] = int64(0)
	}
	for _, f := range list {
		n, _ := summary[f.severity].(int64)
		summary[f.severity] = n + 1
		if len(values) == maxFindings {
			continue
		}
		m := map[string]any{"path": f.path, "line": int64(f.line), "rule": f.rule, "severity": f.severity, "message": f.message}
		if f.cwe != "" {
			m["cwe"] = f.cwe
		}
		values = append(values, m)
	}
	return values, summary
}

// Run looks at every file that is understood.
func (s StyleAnalysis) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	files, err := parseCode(ctx, env, "code", s.Code, nil)
	if err != nil {
		return executor.Output{}, err
	}
	guide := expr.Text(s.StyleGuide)
	longest := map[string]int{"go": lineLimit(guide, "go"), "python": lineLimit(guide, "python")}
	var all []finding
	receivers := map[string]string{}
	for _, f := range files {
		x := &findings{path: f.path}
		for _, e := range f.errors {
			x.add(e.line, "syntax-error", "error", "%s", e.text)
		}
		if f.note == "" {
			styleOfText(f, x, longest[f.language])
		}
		for i := range f.functions {
			if n := len(f.functions[i].params); n > 7 {
				x.add(f.functions[i].line, "too-many-parameters", "info", "%s has %d parameters", f.functions[i].fullName(), n)
			}
		}
		switch {
		case f.golang != nil:
			styleOfGo(f, x, receivers)
		case f.python != nil:
			styleOfPython(f, x)
		}
		all = append(all, x.list...)
	}
	violations, summary := report(all, []string{"error", "warning", "info"})
	return executor.Output{Value: map[string]any{
		"violations": violations, "summary": summary, "skipped": skipped(files),
		"guide": map[string]any{"guide": guide, "go": int64(longest["go"]), "python": int64(longest["python"])},
	}}, nil
}

var (
	lineBefore = regexp.MustCompile(`(?i)lines?\D{0,20}?([0-9]{2,3})\b`)
	lineAfter  = regexp.MustCompile(`(?i)\b([0-9]{2,3})[ -]*(?:char|column|col\b)`)
)

// lineLimit reads from a style guide how long a line may be.
func lineLimit(guide, language string) int {
	for _, p := range []*regexp.Regexp{lineAfter, lineBefore} {
		if m := p.FindStringSubmatch(guide); m != nil {
			n := 0
			for _, c := range m[1] {
				n = n*10 + int(c-'0')
			}
			if n >= 40 {
				return n
			}
		}
	}
	if language == "go" {
		return 120
	}
	switch low := strings.ToLower(guide); {
	case strings.Contains(low, "black"):
		return 88
	case strings.Contains(low, "google"):
		return 80
	}
	return 79
}

var todo = regexp.MustCompile(`(?i)\b(todo|fixme|xxx|hack)\b`)

// styleOfText holds the rules that need no structure.
func styleOfText(f *parsedFile, x *findings, longest int) {
	text := f.text
	if text == "" {
		return
	}
	inside := f.insideStrings()
	n, blanks := 0, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		body := strings.TrimRight(line, " \t\f")
		if body == "" {
			blanks++
		} else {
			blanks = 0
		}
		if width := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); width > longest && !strings.Contains(line, "://") {
			x.add(n, "line-too-long", "info", "the line has %d characters; the guide allows %d", width, longest)
		}
		if inside[n] {
			continue
		}
		if body != line {
			x.add(n, "trailing-whitespace", "info", "white space stands at the end of the line")
		}
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, " ") && strings.Contains(indent, "\t") &&
			(f.language == "python" || strings.Contains(indent, " \t")) {
			x.add(n, "mixed-indentation", "warning", "tabs and spaces are mixed in the indentation")
		}
	}
	switch {
	case !strings.HasSuffix(text, "\n"):
		x.add(n, "no-final-newline", "info", "the last line does not end")
	case blanks > 0:
		x.add(n, "trailing-blank-lines", "info", "%d blank lines stand at the end", blanks)
	}
	for _, c := range f.comments {
		if word := todo.FindString(c.text); word != "" {
			x.add(c.line, "todo-comment", "info", "%s: %s", strings.ToUpper(word), head(c.text, 120))
		}
	}
}

// insideStrings are the lines of texts that span several: their white space is the
// text's own.
func (f *parsedFile) insideStrings() map[int]bool {
	m := &measurement{comment: map[int]bool{}}
	switch {
	case f.golang != nil:
		m.goLexemes(f)
	case f.python != nil:
		m.pyLexemes(f.python.tokens)
	}
	inside := map[int]bool{}
	for _, l := range m.lexemes {
		for n := l.line; n <= l.endLine && l.endLine > l.line; n++ {
			inside[n] = true
		}
	}
	return inside
}
