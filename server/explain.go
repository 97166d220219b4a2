package server

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// example is a command line that runs a pipeline: with its required inputs,
// or all if none is required.
func example(p *pipeline.Plan) string {
	file := p.File
	if file == "" {
		file = "pipeline.yaml"
	}
	words := []string{"orchestrator", "run", shellWord(file)}
	for i := range p.Inputs {
		if in := &p.Inputs[i]; in.Required {
			words = append(words, "-i", shellWord(in.Name+"="+exampleValue(&in.Type)))
		}
	}
	return strings.Join(words, " ")
}

func exampleValue(t *pipeline.Type) string {
	switch t.Kind {
	case "integer":
		return "1"
	case "number":
		return "1.5"
	case "boolean":
		return "true"
	case "enum":
		if len(t.Values) > 0 {
			if s, ok := t.Values[0].(string); ok {
				return s
			}
			return string(pipeline.EncodeValue(t.Values[0]))
		}
	case "list":
		return "[]"
	case "map":
		return "{}"
	case "path":
		return "."
	case "file":
		return "@file.txt"
	case "duration":
		return "10s"
	}
	return "TEXT"
}

// shellWord quotes a word for a POSIX shell if it must be.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=,:@+%", r)
	}
	for _, r := range s {
		if !plain(r) {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	if s == "" {
		return "''"
	}
	return s
}
