package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// answerFlags give values of <AUTO> tags.
type answerFlags struct {
	answersFile string
	autos       []string // step.param=value
}

func (a *answerFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&a.autos, "auto", nil, "the value of an <AUTO> tag as step.param=value; wins over --answers (repeatable)")
	fl.StringVar(&a.answersFile, "answers", "", "a YAML file with the values of <AUTO> tags by step.param")
}

// answers reads what the command line gives for the <AUTO> tags of a pipeline.
func (c *cli) answers(ctx context.Context, cl *client, src *source, f *runFlags) (map[string]any, error) {
	var about *api.Pipeline
	given, faults, err := c.givenAnswers(&f.answerFlags, f.quiet, func() (_ []*api.Hole, err error) {
		if about, err = c.describe(ctx, cl, src); err != nil {
			return nil, c.refused(ctx, cl, src, err)
		}
		return about.GetHoles(), nil
	})
	if faults != nil {
		return nil, c.refuseAnswers(src, about, faults)
	}
	return given, err
}

// givenAnswers reads the answers that flags give, by the tags that there are, and
// says what is wrong with them. An answer of the file that no tag asks for is a
// warning: one file may serve several pipelines.
func (c *cli) givenAnswers(f *answerFlags, quiet bool, tags func() ([]*api.Hole, error)) (given map[string]any, faults []string, err error) {
	given = map[string]any{}
	if f.answersFile != "" {
		text, err := readFile("answers", f.answersFile)
		if err != nil {
			return nil, nil, err
		}
		if given, err = spec.ParseAnswers(f.answersFile, text); err != nil {
			return nil, nil, unreadable("the answers in "+f.answersFile+" cannot be read", err)
		}
	}
	texts, err := pairs("answer", f.autos)
	if err != nil || len(given)+len(texts) == 0 {
		return nil, nil, err
	}
	holes, err := tags()
	if err != nil {
		return nil, nil, err
	}
	for _, key := range sortedKeys(given) {
		if hole(holes, key) == nil {
			delete(given, key)
			if !quiet {
				fmt.Fprintln(c.painted(c.err), painted("WAITING", "warning: "+f.answersFile+" has an answer that nothing asks for: "+key+meant(holes, key)))
			}
		}
	}
	for _, key := range sortedKeys(texts) {
		h := hole(holes, key)
		if h == nil {
			faults = append(faults, "nothing is filled in at "+key+meant(holes, key))
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
	return given, faults, nil
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
func hole(holes []*api.Hole, key string) *api.Hole {
	path, param, _ := strings.Cut(key, ".")
	general := numbers.ReplaceAllString(path, "") + "." + param
	for _, h := range holes {
		if h.GetKey() == key || h.GetKey() == general {
			return h
		}
	}
	return nil
}

// meant asks whether another tag was meant.
func meant(holes []*api.Hole, key string) string {
	var keys []string
	for _, h := range holes {
		keys = append(keys, h.GetKey())
	}
	if n := expr.Suggest(key, keys); n != "" {
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
	return answersUnfit(src.file+" was not run", p.GetHoles(), faults)
}

func answersUnfit(what string, holes []*api.Hole, faults []string) error {
	f := &failure{code: exitInvalid, what: what + ": the answers do not fit", why: strings.Join(faults, "\n")}
	if len(holes) > 0 {
		f.why += "\n\n<AUTO> tags of the pipeline:\n" + holeTable(holes, "  ")
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
