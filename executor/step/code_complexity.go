package step

import (
	"context"
	"go/scanner"
	"go/token"
	"math"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const complexityDoc = `Measures code: how much of it there is, and how hard it is to follow. Go and Python are measured.

    - id: complexity
      action: analyze_complexity
      parameters: {code: "{{ code_parsing.parsed_code }}"}

code is what parse_code gives, or anything that parse_code takes. metrics narrows what is measured; it may be a list or any text that names some of these:

cyclomatic: McCabe's number (A Complexity Measure, 1976): 1, and 1 for each if, loop, case, exception handler, conditional expression, and, or, and clause of a comprehension. A case that takes whatever is left does not count. Function literals count where they stand; named functions of Python within others count for themselves.
cognitive: as G. Ann Campbell defines it (Cognitive Complexity, a new way of measuring understandability, SonarSource, 2018): 1 for each break in the linear flow, more where it is nested, 1 for each sequence of like boolean operators, 1 for recursion. Recursion is seen where a function calls itself; comprehensions do not count.
nesting: how deep blocks stand within each other.
halstead: Halstead's numbers (Elements of Software Science, 1977). Operands are names and literals; operators are keywords, signs and pairs of brackets, but not commas, semicolons and Python's colons. difficulty, effort, time (seconds) and bugs follow from them.
lines: total, code, comment (also docstrings of Python), blank.
maintainability: 171 - 5.2 ln(volume) - 0.23 cyclomatic - 16.2 ln(lines), from 0 to 100 (Oman and Hagemeister, 1992, scaled as by Microsoft). Of a file and in total the mean of the functions.

metrics.files holds them for each file with its functions, metrics.total for all; metrics.skipped names files that were not measured, with the reason.`

// AnalyzeComplexity names the code and the metrics.
type AnalyzeComplexity struct {
	Code    any `param:"required" doc:"what parse_code gives, or a file, a folder, a pattern, the code itself, or a list of them"`
	Metrics any `doc:"which: cyclomatic, cognitive, nesting, halstead, lines, maintainability; a list or a text; default: all"`
}

type complexityResult struct {
	Metrics map[string]any `doc:"files, total, measured (names of metrics), skipped"`
}

func complexityAction() executor.Action {
	return executor.NewAction[AnalyzeComplexity](executor.Describe{
		Name: "analyze_complexity", Doc: complexityDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: complexityResult{},
	})
}

// codeMetrics are the metrics with the stems by which texts name them.
var codeMetrics = []struct {
	name  string
	stems []string
}{
	{"cyclomatic", []string{"cyclomatic", "mccabe"}},
	{"cognitive", []string{"cognitive"}},
	{"nesting", []string{"nesting", "nested", "depth"}},
	{"halstead", []string{"halstead"}},
	{"lines", []string{"lines", "loc", "size"}},
	{"maintainability", []string{"maintainab"}},
}

// Run measures every file that is understood.
func (a AnalyzeComplexity) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	files, err := parseCode(ctx, env, "code", a.Code, nil)
	if err != nil {
		return executor.Output{}, err
	}
	wanted := map[string]bool{}
	var measured []string
	asked := strings.ToLower(expr.Text(a.Metrics))
	for pass := 0; pass < 2 && measured == nil; pass++ { // a text that names none wants all
		for _, m := range codeMetrics {
			if pass == 1 || slices.ContainsFunc(m.stems, func(s string) bool { return strings.Contains(asked, s) }) {
				wanted[m.name] = true
				measured = append(measured, m.name)
			}
		}
	}
	list, all := []any{}, &measurement{}
	for _, f := range files {
		if !f.supported() {
			continue
		}
		m := measure(f)
		all.include(m)
		v := m.value(wanted)
		v["path"], v["language"] = f.path, f.language
		functions := make([]any, len(f.functions))
		for i := range f.functions {
			functions[i] = m.function(&f.functions[i], wanted)
		}
		v["functions"] = functions
		list = append(list, v)
	}
	all.volume = halsteadOf(all.lexemes)
	total := all.value(wanted)
	total["files"], total["functions"] = int64(len(list)), int64(all.functions)
	v := map[string]any{"metrics": map[string]any{
		"files": list, "total": total, "measured": anyList(measured), "skipped": skipped(files),
	}}
	if n := len(pipeline.EncodeValue(v)); n > maxValue {
		return executor.Output{}, tooLarge("the metrics have %s; a step gives at most %s: name a part of the code", size(int64(n)), size(maxValue))
	}
	return executor.Output{Value: v}, nil
}

// skipped names the files that an analysis could not look at.
func skipped(files []*parsedFile) []any {
	list := []any{}
	for _, f := range files {
		if f.supported() {
			continue
		}
		note := f.note
		if len(f.errors) > 0 {
			note = "it does not parse: " + f.errors[0].Error()
		}
		list = append(list, map[string]any{"path": f.path, "reason": note})
	}
	return list
}

// lexeme is a token as Halstead and the line counts see it.
type lexeme struct {
	text     string
	operator bool
	line     int
	endLine  int
}

// measurement is the numbers of a file, or of all.
type measurement struct {
	lexemes   []lexeme
	code      map[int]bool // lines with code; only of a file
	comment   map[int]bool // lines with a comment alone; only of a file
	lines     lineCount
	functions int

	cyclomatic, cyclomaticMax int
	cognitive, cognitiveMax   int
	nesting                   int
	volume                    halstead
	indexes                   []float64 // maintainability of each function
}

type lineCount struct{ total, code, comment, blank int }

func measure(f *parsedFile) *measurement {
	m := &measurement{code: map[int]bool{}, comment: map[int]bool{}, functions: len(f.functions)}
	doc := map[int]bool{}
	if f.golang != nil {
		m.goLexemes(f)
	} else {
		m.pyLexemes(f.python.tokens)
		pyWalk(f.python.body, func(s *pyStatement) bool {
			if s.kind == "expression" && !slices.ContainsFunc(s.head, func(t pyToken) bool { return t.kind != pyString || t.fields != nil }) {
				for l := s.line; l <= s.endLine; l++ {
					doc[l] = true
				}
			}
			return true
		})
	}
	for _, x := range m.lexemes {
		for l := x.line; l <= x.endLine; l++ {
			m.code[l] = true
		}
	}
	for l := range doc {
		delete(m.code, l)
		m.comment[l] = true
	}
	for l := range m.comment {
		if m.code[l] {
			delete(m.comment, l)
		}
	}
	m.lines = m.between(1, countLines(f.text))
	m.volume = halsteadOf(m.lexemes)
	for i := range f.functions {
		x := &f.functions[i]
		m.cyclomatic += x.cyclomatic
		m.cyclomaticMax = max(m.cyclomaticMax, x.cyclomatic)
		if x.outer {
			m.cognitive += x.cognitive
		}
		m.cognitiveMax = max(m.cognitiveMax, x.cognitive)
		m.nesting = max(m.nesting, x.nesting)
		m.indexes = append(m.indexes, m.index(x))
	}
	if f.python != nil { // code outside of functions
		m.cyclomatic += pyCyclomatic(f.python.body) - 1
		m.nesting = max(m.nesting, pyDepth(f.python.body))
		m.cognitive += pyCognitiveOutside(f.python.body)
	}
	return m
}

// pyCognitiveOutside counts a module without its functions and methods.
func pyCognitiveOutside(body []*pyStatement) int {
	n := 0
	for _, s := range body {
		switch s.kind {
		case "def":
		case "class":
			n += pyCognitiveOutside(s.body)
		default:
			n += pyCognitive([]*pyStatement{s}, 0)
		}
	}
	return n
}

// between counts the lines of a part of the file.
func (m *measurement) between(first, last int) lineCount {
	c := lineCount{total: last - first + 1}
	for l := first; l <= last; l++ {
		switch {
		case m.code[l]:
			c.code++
		case m.comment[l]:
			c.comment++
		}
	}
	c.blank = c.total - c.code - c.comment
	return c
}

func (m *measurement) goLexemes(f *parsedFile) {
	fset := token.NewFileSet()
	file := fset.AddFile(f.path, -1, len(f.text))
	var s scanner.Scanner
	s.Init(file, []byte(f.text), nil, scanner.ScanComments)
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return
		}
		x := lexeme{text: lit, line: fset.Position(pos).Line}
		x.endLine = x.line + strings.Count(lit, "\n")
		switch {
		case tok == token.COMMENT:
			for l := x.line; l <= x.endLine; l++ {
				m.comment[l] = true
			}
			continue
		case tok == token.SEMICOLON && lit == "\n":
			continue
		case tok.IsKeyword() || tok.IsOperator():
			x.text, x.operator = tok.String(), true
			x.endLine = x.line
		}
		m.lexemes = append(m.lexemes, x)
	}
}

func (m *measurement) pyLexemes(tokens []pyToken) {
	for i := range tokens {
		t := &tokens[i]
		switch t.kind {
		case pyComment:
			m.comment[t.line] = true
			continue
		case pyNewline, pyIndent, pyDedent:
			continue
		}
		m.lexemes = append(m.lexemes, lexeme{
			text: t.text, line: t.line, endLine: t.endLine,
			operator: t.kind == pyOp || (t.kind == pyName && pyKeyword(t.text) && !slices.Contains([]string{"None", "True", "False"}, t.text)),
		})
		if len(t.fields) > 0 {
			m.pyLexemes(t.fields)
		}
	}
}

// halstead holds the counts of operators and operands, of distinct ones and of all.
type halstead struct{ operators, operands, operatorsAll, operandsAll int }

func halsteadOf(list []lexeme) halstead {
	var h halstead
	seen := map[lexeme]bool{}
	for _, x := range list {
		if x.operator && strings.Contains(") ] } , ; :", x.text) {
			continue
		}
		key := lexeme{text: x.text, operator: x.operator}
		known := seen[key]
		seen[key] = true
		n, all := &h.operands, &h.operandsAll
		if x.operator {
			n, all = &h.operators, &h.operatorsAll
		}
		*all++
		if !known {
			*n++
		}
	}
	return h
}

func (h halstead) length() int     { return h.operatorsAll + h.operandsAll }
func (h halstead) vocabulary() int { return h.operators + h.operands }

func (h halstead) size() float64 {
	if h.vocabulary() == 0 {
		return 0
	}
	return float64(h.length()) * math.Log2(float64(h.vocabulary()))
}

func (h halstead) difficulty() float64 {
	if h.operands == 0 {
		return 0
	}
	return float64(h.operators) / 2 * float64(h.operandsAll) / float64(h.operands)
}

func (h halstead) value() map[string]any {
	effort := h.difficulty() * h.size()
	return map[string]any{
		"distinct_operators": int64(h.operators), "distinct_operands": int64(h.operands),
		"operators": int64(h.operatorsAll), "operands": int64(h.operandsAll),
		"vocabulary": int64(h.vocabulary()), "length": int64(h.length()),
		"volume": rounded(h.size()), "difficulty": rounded(h.difficulty()), "effort": rounded(effort),
		"time": rounded(effort / 18), "bugs": rounded(h.size() / 3000),
	}
}

// rounded keeps three decimals: the numbers are no more exact than that.
func rounded(f float64) float64 { return math.Round(f*1000) / 1000 }

// within are the lexemes of a function.
func (m *measurement) within(f *codeFunction) []lexeme {
	first, _ := slices.BinarySearchFunc(m.lexemes, f.line, func(x lexeme, line int) int { return x.line - line })
	last := first
	for last < len(m.lexemes) && m.lexemes[last].line <= f.endLine {
		last++
	}
	return m.lexemes[first:last]
}

// index is the maintainability of a function.
func (m *measurement) index(f *codeFunction) float64 {
	volume := math.Max(1, halsteadOf(m.within(f)).size())
	lines := max(1, m.between(f.line, f.endLine).code)
	mi := 171 - 5.2*math.Log(volume) - 0.23*float64(f.cyclomatic) - 16.2*math.Log(float64(lines))
	return math.Min(100, math.Max(0, mi*100/171))
}

func (m *measurement) function(f *codeFunction, wanted map[string]bool) map[string]any {
	v := map[string]any{
		"name": f.name, "class": f.class, "line": int64(f.line), "end_line": int64(f.endLine), "params": int64(len(f.params)),
	}
	if wanted["cyclomatic"] {
		v["cyclomatic"] = int64(f.cyclomatic)
	}
	if wanted["cognitive"] {
		v["cognitive"] = int64(f.cognitive)
	}
	if wanted["nesting"] {
		v["nesting"] = int64(f.nesting)
	}
	if wanted["halstead"] {
		v["halstead"] = halsteadOf(m.within(f)).value()
	}
	if wanted["lines"] {
		v["lines"] = m.between(f.line, f.endLine).value()
	}
	if wanted["maintainability"] {
		v["maintainability"] = rounded(m.index(f))
	}
	return v
}

func (c lineCount) value() map[string]any {
	return map[string]any{"total": int64(c.total), "code": int64(c.code), "comment": int64(c.comment), "blank": int64(c.blank)}
}

// include adds the numbers of a file to those of all.
func (m *measurement) include(f *measurement) {
	m.lexemes = append(m.lexemes, f.lexemes...)
	m.functions += f.functions
	m.lines.total, m.lines.code = m.lines.total+f.lines.total, m.lines.code+f.lines.code
	m.lines.comment, m.lines.blank = m.lines.comment+f.lines.comment, m.lines.blank+f.lines.blank
	m.cyclomatic, m.cyclomaticMax = m.cyclomatic+f.cyclomatic, max(m.cyclomaticMax, f.cyclomaticMax)
	m.cognitive, m.cognitiveMax = m.cognitive+f.cognitive, max(m.cognitiveMax, f.cognitiveMax)
	m.nesting = max(m.nesting, f.nesting)
	m.indexes = append(m.indexes, f.indexes...)
}

func (m *measurement) value(wanted map[string]bool) map[string]any {
	v := map[string]any{}
	mean := func(sum float64) any {
		if m.functions == 0 {
			return nil
		}
		return rounded(sum / float64(m.functions))
	}
	if wanted["cyclomatic"] {
		v["cyclomatic"] = map[string]any{"sum": int64(m.cyclomatic), "max": int64(m.cyclomaticMax), "mean": mean(float64(m.cyclomatic))}
	}
	if wanted["cognitive"] {
		v["cognitive"] = map[string]any{"sum": int64(m.cognitive), "max": int64(m.cognitiveMax), "mean": mean(float64(m.cognitive))}
	}
	if wanted["nesting"] {
		v["nesting"] = int64(m.nesting)
	}
	if wanted["halstead"] {
		v["halstead"] = m.volume.value()
	}
	if wanted["lines"] {
		v["lines"] = m.lines.value()
	}
	if wanted["maintainability"] {
		sum := 0.0
		for _, i := range m.indexes {
			sum += i
		}
		v["maintainability"] = mean(sum)
	}
	return v
}
