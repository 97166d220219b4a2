// Command actions writes docs/reference/actions.md: what each action of the
// catalogue takes and gives, from the descriptions that the compiler uses.
//
//	go run ./scripts/actions
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

func main() {
	if err := os.WriteFile("docs/reference/actions.md", []byte(reference()), 0o644); err != nil { //nolint:gosec // a source file
		fmt.Fprintln(os.Stderr, "actions:", err)
		os.Exit(1)
	}
}

// effects says what a crash may do to a step of the action.
var effects = map[pipeline.Effect]string{
	"":                         "depends on its parameters",
	pipeline.EffectPure:        "pure",
	pipeline.EffectIdempotent:  "idempotent",
	pipeline.EffectAtLeastOnce: "at_least_once",
	pipeline.EffectAtMostOnce:  "at_most_once",
}

// reference is the page.
func reference() string {
	all := map[string]pipeline.ActionSpec{}
	for _, a := range step.All(step.Config{}) {
		all[a.Spec.Key] = a.Spec
	}
	var b strings.Builder
	b.WriteString("# Actions\n\n" +
		"Written by `make generate` from the catalogue. A parameter without a default that is not\n" +
		"required may be left out. Effects are explained in [effects](../guide/language/effects.md).\n\n" +
		"| action | effect | |\n|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		a := all[key]
		first, _, _ := strings.Cut(strings.TrimSpace(a.Doc), "\n")
		first, _, _ = strings.Cut(first, ". ")
		name := fmt.Sprintf("[`%s`](#%s)", key, anchor(key))
		asks := ""
		if a.Model {
			asks = ", asks a model"
		}
		fmt.Fprintf(&b, "| %s | %s%s | %s |\n", name, effects[a.Effect], asks, cell(strings.TrimSuffix(first, ".")))
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		a := all[key]
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", key, strings.TrimSpace(a.Doc))
		switch {
		case a.Tool != "" && a.Bare:
			fmt.Fprintf(&b, "\n`tool: %s` with `action: %s`, or `action: %s` alone.\n", a.Tool, a.Name, a.Name)
		case a.Tool != "":
			fmt.Fprintf(&b, "\n`tool: %s` with `action: %s`.\n", a.Tool, a.Name)
		}
		table(&b, "parameter", a.Params)
		if a.Open {
			b.WriteString("\nIt takes further parameters of any name.\n")
		}
		for _, name := range a.Secret {
			fmt.Fprintf(&b, "\nSecrets may stand in `%s`.\n", name)
		}
		if a.Returns.Kind == "map" && len(a.Returns.Properties) > 0 {
			table(&b, "gives", a.Returns.Properties)
		} else {
			fmt.Fprintf(&b, "\nIt gives %s.\n", spec.TypeText(&a.Returns))
		}
	}
	return b.String()
}

// table lists parameters or results.
func table(b *strings.Builder, head string, list []pipeline.Property) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| %s | type | default | |\n|---|---|---|---|\n", head)
	for i := range list {
		p := &list[i]
		given := ""
		switch {
		case p.Default != nil:
			given = "`" + cell(string(pipeline.EncodeValue(p.Default))) + "`"
		case p.Required && head == "parameter":
			given = "required"
		}
		doc := p.Doc
		if doc == "" {
			doc = p.Type.Description
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", p.Name, cell(spec.TypeText(&p.Type)), given, cell(doc))
	}
}

// cell is a text within a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}

// anchor is the address of a heading within its page.
func anchor(heading string) string {
	return strings.NewReplacer(".", "", " ", "-").Replace(strings.ToLower(heading))
}
