package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// answers reads what the command line gives for <AUTO> tags, by their keys. An
// answer of the file that no tag asks for is a warning: one file may serve
// several pipelines.
func (c *cli) answers(ctx context.Context, cl *client, src *source, f *runFlags) (map[string]any, error) {
	given := map[string]any{}
	if f.answers != "" {
		text, err := readFile("answers", f.answers)
		if err != nil {
			return nil, err
		}
		if given, err = spec.ParseAnswers(f.answers, text); err != nil {
			return nil, unreadable("the answers in "+f.answers+" cannot be read", err)
		}
	}
	texts, err := pairs("answer", f.autos)
	if err != nil {
		return nil, err
	}
	if len(given)+len(texts) == 0 {
		return nil, nil
	}
	p, err := c.describe(ctx, cl, src)
	if err != nil {
		return nil, c.refused(ctx, cl, src, err)
	}
	for _, key := range sortedKeys(given) {
		if hole(p, key) == nil {
			delete(given, key)
			if !f.quiet {
				fmt.Fprintln(c.painted(c.err), painted("WAITING", "warning: "+f.answers+" has an answer that nothing asks for: "+key+meant(p, key)))
			}
		}
	}
	var faults []string
	for _, key := range sortedKeys(texts) {
		h := hole(p, key)
		if h == nil {
			faults = append(faults, "nothing is filled in at "+key+meant(p, key))
			continue
		}
		v, err := spec.ParseInput(pipeline.Input{Name: key, Type: typeOf(h.GetType())}, texts[key])
		if err != nil {
			for _, text := range inputFaults(key, err) {
				faults = append(faults, strings.Replace(text, "input "+key, "the answer to "+key, 1))
			}
			continue
		}
		given[key] = v
	}
	if faults != nil {
		return nil, c.refuseAnswers(src, p, faults)
	}
	return given, nil
}

// unreadable is a file of the language that has faults.
func unreadable(what string, err error) error {
	if d, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		var b strings.Builder
		spec.Format(&b, d, false)
		return &failure{code: exitInvalid, what: what, why: b.String()}
	}
	return &failure{code: exitInvalid, what: what, why: err.Error()}
}

// numbers are those of passes and visits in the path of a step.
var numbers = regexp.MustCompile(`\[\d+\]|~\d+`)

// hole finds the tag that a key answers, which may name one pass of a loop.
func hole(p *api.Pipeline, key string) *api.Hole {
	path, param, _ := strings.Cut(key, ".")
	general := numbers.ReplaceAllString(path, "") + "." + param
	for _, h := range p.GetHoles() {
		if h.GetKey() == key || h.GetKey() == general {
			return h
		}
	}
	return nil
}

// meant asks whether another tag was meant.
func meant(p *api.Pipeline, key string) string {
	var keys []string
	for _, h := range p.GetHoles() {
		keys = append(keys, h.GetKey())
	}
	if n := nearest(key, keys); n != "" {
		return fmt.Sprintf(" (did you mean %s?)", n)
	}
	return ""
}

// typeOf is the type that the API names, as far as it is needed to read a text:
// the server knows it whole, and checks the value.
func typeOf(name string) pipeline.Type {
	name = strings.TrimPrefix(name, "optional ")
	if values, ok := strings.CutPrefix(name, "one of "); ok {
		// Texts stand there as they are. Only where all look like something
		// else is the value that.
		for v := range strings.SplitSeq(values, ", ") {
			x, err := spec.ParseInput(pipeline.Input{Type: pipeline.Type{Kind: "any"}}, v)
			if _, isText := x.(string); err != nil || isText {
				return pipeline.Type{Kind: "string"}
			}
		}
		return pipeline.Type{Kind: "any"}
	}
	if item, ok := strings.CutPrefix(name, "list<"); ok {
		t := typeOf(strings.TrimSuffix(item, ">"))
		return pipeline.Type{Kind: "list", Items: &t}
	}
	kind := name
	if i := strings.IndexAny(name, " {"); i > 0 {
		kind = name[:i]
	}
	if !slices.Contains([]string{"string", "integer", "number", "boolean", "duration", "list", "map", "path", "file", "secret"}, kind) {
		kind = "any"
	}
	return pipeline.Type{Kind: kind}
}

// refuseAnswers lists what is wrong with answers, and which tags there are.
func (c *cli) refuseAnswers(src *source, p *api.Pipeline, faults []string) error {
	if c.asJSON {
		return c.refuseInputs(src, p, faults)
	}
	f := &failure{code: exitInvalid, what: src.file + " was not run: the answers do not fit", why: strings.Join(faults, "\n")}
	if len(p.GetHoles()) > 0 {
		f.why += "\n\n<AUTO> tags of the pipeline:\n" + holeTable(p, "  ")
	} else {
		f.why += "\nthe pipeline has no <AUTO> tags"
	}
	return f
}

// howToAnswer says how open tags are filled in, if there are any among findings.
func howToAnswer(d *api.Diagnostics) []string {
	for _, x := range d.GetDiagnostics() {
		if x.GetCode() == openTag {
			return []string{
				"answer it with --auto " + shellWord(x.GetPath()+"=VALUE"),
				"or all of them with --answers FILE, a YAML map of lines such as " + x.GetPath() + ": VALUE",
				"or let a model do it: set the key of a provider (orchestrator models list names it), or --script FILE",
			}
		}
	}
	return nil
}

// openTag is the code of a finding about an <AUTO> tag that nothing fills in.
const openTag = "E0306"
