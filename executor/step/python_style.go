package step

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	capWords  = regexp.MustCompile(`^_*[A-Z][A-Za-z0-9]*$`)
	snakeCase = regexp.MustCompile(`^_*[a-z0-9_]*$`)
	visitor   = regexp.MustCompile(`^(visit|depart|do)_[A-Za-z]+$`) // names that the standard library asks for
)

// pyCallbacks are methods whose names the standard library prescribes.
var pyCallbacks = strings.Fields("setUp tearDown setUpClass tearDownClass setUpModule tearDownModule asyncSetUp asyncTearDown runTest maxDiff addCleanup")

// styleOfPython holds a file against PEP 8 and PEP 257, and a few habits that are
// mistakes.
func styleOfPython(f *parsedFile, x *findings) {
	base := path.Base(f.path)
	test := strings.HasPrefix(base, "test_") || strings.HasSuffix(base, "_test.py")
	if !test && pyDocstring(f.python.body) == nil && len(f.python.body) > 0 && !strings.HasPrefix(base, "_") && base != "<text>" {
		x.add(1, "missing-doc", "info", "the module has no docstring")
	}
	styleOfPythonBlock(f.python.body, x, "", !test)
	if base != "__init__.py" {
		pyUnusedImports(f, x)
	}
	lastLine := 0
	pyWalk(f.python.body, func(s *pyStatement) bool {
		if s.line == lastLine && !slices.Contains([]string{"elif", "else", "except", "finally", "case"}, s.kind) && !pyEllipsis(s) {
			x.add(s.line, "several-statements", "info", "several statements stand on one line")
			lastLine = 0
		} else {
			lastLine = s.endLine
			if len(s.body) > 0 {
				lastLine = s.line
			}
		}
		styleOfPythonStatement(s, x)
		return true
	})
}

// pyEllipsis tells the body ... of a stub, which may stand beside its head.
func pyEllipsis(s *pyStatement) bool { return len(s.head) == 1 && s.head[0].op("...") }

func styleOfPythonBlock(body []*pyStatement, x *findings, class string, public bool) {
	for _, s := range body {
		hidden := strings.HasPrefix(s.name, "_")
		switch s.kind {
		case "class":
			if !capWords.MatchString(s.name) {
				x.add(s.line, "naming", "warning", "the class %s is not in CapWords", s.name)
			}
			if public && !hidden && pyDocstring(s.body) == nil {
				x.add(s.line, "missing-doc", "info", "the class %s has no docstring", s.name)
			}
			styleOfPythonBlock(s.body, x, s.name, public && !hidden)
		case "def":
			if !snakeCase.MatchString(s.name) && !visitor.MatchString(s.name) && !slices.Contains(pyCallbacks, s.name) {
				x.add(s.line, "naming", "warning", "the function %s is not in snake_case", s.name)
			}
			for _, p := range s.params() {
				name := strings.TrimLeft(p.name, "*")
				switch {
				case slices.Contains([]string{"l", "O", "I"}, name):
					x.add(s.line, "ambiguous-name", "warning", "the parameter %s of %s looks like a number", name, s.name)
				case !snakeCase.MatchString(name) && len(name) > 1:
					x.add(s.line, "naming", "info", "the parameter %s of %s is not in snake_case", name, s.name)
				}
				if pyMutable(p.value) {
					x.add(s.line, "mutable-default", "error", "the default of %s is made once and shared by all calls of %s; use None", name, s.name)
				}
			}
			if public && !hidden && pyDocstring(s.body) == nil && !pyOverload(s) {
				name := s.name
				if class != "" {
					name = class + "." + name
				}
				x.add(s.line, "missing-doc", "info", "the function %s has no docstring", name)
			}
			styleOfPythonBlock(s.body, x, "", false)
		default:
			styleOfPythonBlock(s.body, x, class, public)
		}
	}
}

// pyOverload tells declarations that are documented elsewhere.
func pyOverload(s *pyStatement) bool {
	return slices.ContainsFunc(s.decorators, func(d []pyToken) bool {
		name := pyText(d)
		return strings.HasSuffix(name, "overload") || strings.HasSuffix(name, ".setter") || strings.HasSuffix(name, ".deleter") || strings.HasSuffix(name, "override")
	})
}

// pyMutable reports whether a default is a list, a map or a set.
func pyMutable(value []pyToken) bool {
	if len(value) == 0 {
		return false
	}
	if (value[0].op("[") || value[0].op("{")) && pyClose(value, 0) == len(value)-1 {
		return true
	}
	if value[0].kind == pyName && slices.Contains([]string{"list", "dict", "set", "bytearray"}, value[0].text) && len(value) > 2 && value[1].op("(") {
		return pyClose(value, 1) == len(value)-1
	}
	return false
}

func styleOfPythonStatement(s *pyStatement, x *findings) {
	switch s.kind {
	case "except":
		if len(s.head) == 1 {
			x.add(s.line, "bare-except", "warning", "except without a class catches also what ends the program; name what is expected")
		}
	case "import":
		if n := len(s.imports()); n > 1 {
			x.add(s.line, "import-form", "info", "%d modules stand in one import", n)
		}
	case "from":
		for _, i := range s.imports() {
			if i.name == "*" {
				x.add(s.line, "star-import", "warning", "what %s gives cannot be told from what the module defines", i.module)
			}
		}
	case "assert":
		if len(s.head) > 1 && s.head[1].op("(") && pyClose(s.head, 1) == len(s.head)-1 && len(pySplit(s.head[2:len(s.head)-1], ",")) > 1 {
			x.add(s.line, "assert-tuple", "error", "a tuple is always true; the assertion needs no brackets")
		}
	case "assign":
		if len(s.head) > 2 && s.head[0].kind == pyName && s.head[1].op("=") {
			name := s.head[0].text
			switch {
			case s.head[2].word("lambda"):
				x.add(s.line, "lambda-assignment", "info", "%s is a function; def gives it its name", name)
			case slices.Contains([]string{"l", "O", "I"}, name):
				x.add(s.line, "ambiguous-name", "warning", "%s looks like a number", name)
			}
		}
	}
	for _, e := range s.expressions() {
		pyComparisons(e, x)
	}
}

// pyComparisons finds comparisons that mean something else, and f-strings without
// a field.
func pyComparisons(tokens []pyToken, x *findings) {
	for i := range tokens {
		t := &tokens[i]
		if t.kind == pyString && strings.ContainsAny(pyStringPrefix(t.text), "fF") {
			joined := (i > 0 && tokens[i-1].kind == pyString) || (i+1 < len(tokens) && tokens[i+1].kind == pyString)
			if len(t.fields) == 0 && !joined {
				x.add(t.line, "empty-f-string", "info", "the f-string has no field")
			}
		}
		pyComparisons(t.fields, x)
		if i == 0 || i+1 >= len(tokens) {
			continue
		}
		before, next := &tokens[i-1], &tokens[i+1]
		switch {
		case t.op("==") || t.op("!="):
			switch {
			case next.word("None") || before.word("None"):
				x.add(t.line, "none-comparison", "warning", "None is compared with is")
			case next.word("True") || next.word("False") || before.word("True") || before.word("False"):
				x.add(t.line, "bool-comparison", "info", "a truth value is compared with %s", t.text)
			}
		case t.word("is"):
			if next.word("not") && i+2 < len(tokens) {
				next = &tokens[i+2]
			}
			if next.kind == pyNumber || next.kind == pyString {
				x.add(t.line, "literal-identity", "error", "is compares identity; whether equal texts or numbers are one is not defined")
			}
		}
	}
}

// pyUnusedImports finds imports that bind a name which the file never uses. A name
// in a text counts as used where it may be an annotation or stands in __all__.
func pyUnusedImports(f *parsedFile, x *findings) {
	used := map[string]bool{}
	var use func(tokens []pyToken)
	use = func(tokens []pyToken) {
		for i := range tokens {
			t := &tokens[i]
			switch {
			case t.kind == pyName && (i == 0 || !tokens[i-1].op(".")):
				used[t.text] = true
			case t.kind == pyString && t.fields == nil:
				if text := pyStringValue(t.text); len(text) < 200 {
					for _, word := range strings.FieldsFunc(text, func(r rune) bool {
						return !(r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
					}) {
						used[word] = true
					}
				}
			}
			use(t.fields)
		}
	}
	optional := map[int]bool{} // imports that are tried: whether they succeed is what counts
	pyWalk(f.python.body, func(s *pyStatement) bool {
		for _, e := range s.expressions() {
			use(e)
		}
		if s.kind == "case" {
			use(s.head)
		}
		if s.kind == "global" || s.kind == "nonlocal" {
			use(s.head[1:])
		}
		if s.kind == "try" || s.kind == "except" {
			for l := s.line; l <= s.endLine; l++ {
				optional[l] = true
			}
		}
		return true
	})
	for _, i := range f.imports {
		if i.module == "__future__" || i.name == "*" || optional[i.line] || (i.alias != "" && i.alias == i.name) {
			continue
		}
		if !used[i.binds()] {
			what := i.module
			if i.name != "" {
				what = i.module + "." + i.name
			}
			x.add(i.line, "unused-import", "warning", "%s is imported and not used", what)
		}
	}
}
