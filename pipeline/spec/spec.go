// Package spec is the pipeline language: it turns YAML into a pipeline.Plan, or
// says what is wrong with it, where, and what to do about it. It is pure; what
// actions there are comes in as data.
//
//	plan, notes, err := spec.Compile(spec.Source{File: "nightly.yaml", Text: text}, catalog)
//	var d *pipeline.Diagnostics
//	if errors.As(err, &d) {
//		spec.Format(os.Stderr, d, false)
//	}
//
// The way through the package: text.go finds lines, shield.go hides <AUTO> tags
// from YAML, yaml.go and scalar.go build the node tree, keys.go is the one table of
// the language's keys, document.go, step.go, block.go, branch.go, control.go and
// field.go read the tree into a plan, with auto.go for tags, contract.go,
// artifact.go, skill.go, agent.go and ownaction.go for what steps promise and use,
// failure.go and jump.go for how they fail and where they go on. imports.go
// compiles what a pipeline calls. names.go resolves what templates refer to,
// order.go derives the edges between steps, writes.go compares the files that they
// write. inputs.go, answers.go and conform.go check values, codec.go stores plans,
// needs.go lists what travels with a source, format.go prints findings, schema.go
// and explain.go describe the language and a pipeline to people.
package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Source is a pipeline's text with its name in messages, and the files that
// travel with it: imported pipelines, prompt files and skills are found there.
type Source struct {
	File  string
	Text  []byte
	Files pipeline.Bundle
}

// Compile checks a pipeline and builds its plan. It is pure. On success the
// diagnostics hold only warnings and infos; otherwise the plan is nil and err is
// the *pipeline.Diagnostics.
func Compile(src Source, cat pipeline.Catalog) (*pipeline.Plan, *pipeline.Diagnostics, error) {
	t, bad := newText(src.File, string(src.Text))
	found := newFindings(t)
	if bad != nil {
		found.error(*bad)
		d := found.diagnostics()
		return nil, d, d
	}
	whole := &program{file: src.File, files: src.Files, plan: &pipeline.Plan{}, imported: map[string]*callee{}, reading: []string{path.Base(src.File)}}
	var plan *pipeline.Plan
	if root := load(t, found); root != nil {
		plan = newCompiler(t, found, newCatalog(cat), whole).document(root)
	}
	errs := found.errs
	for _, f := range whole.findings {
		errs += f.errs
	}
	d := found.diagnostics(whole.findings...)
	if plan == nil || errs > 0 {
		return nil, d, d
	}
	plan = whole.finish(plan)
	plan.Bundle = src.Files.Digest()
	return plan, d, nil
}

// Digest names what Compile's result depends on: the source with its name, the
// catalogue and the plan's format. It serves as a cache key.
func Digest(src Source, cat pipeline.Catalog) pipeline.Digest {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(strconv.Itoa(pipeline.PlanFormat)), []byte(cat.Digest), []byte(src.File), src.Text, []byte(src.Files.Digest())} {
		h.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		h.Write([]byte{':'})
		h.Write(part)
	}
	return digestOf(h.Sum(nil))
}

func digestOf(sum []byte) pipeline.Digest {
	return pipeline.Digest("sha256:" + hex.EncodeToString(sum))
}
