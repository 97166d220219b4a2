package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// inputs reads the inputs of the command line by their types.
func (c *cli) inputs(ctx context.Context, cl *client, src *source, f *runFlags) (map[string]any, error) {
	given := map[string]any{}
	if f.inputsFile != "" {
		var text []byte
		var err error
		if f.inputsFile == "-" {
			text, err = io.ReadAll(c.in)
		} else {
			text, err = readFile("inputs", f.inputsFile)
		}
		if err != nil {
			return nil, err
		}
		if given, err = spec.ReadInputs(text); err != nil {
			return nil, &failure{code: exitInvalid, what: "the inputs in " + f.inputsFile + " cannot be read", why: err.Error()}
		}
	}
	texts, err := pairs("input", f.inputs)
	if err != nil {
		return nil, err
	}
	if len(texts) > 0 {
		if err := c.parseInputs(ctx, cl, src, texts, given); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// uploads reads the files that inputs of a run on a server name, by their
// paths: they are put at the same places of the run's workspace. A path that
// leads elsewhere, or to a folder, is only a text.
func (c *cli) uploads(p *api.Pipeline, given map[string]any) (pipeline.Bundle, error) {
	files, sizes, total := pipeline.Bundle{}, map[string]int64{}, int64(0)
	for _, in := range p.GetInputs() {
		name, ok := given[in.GetName()].(string)
		if kind := in.GetType(); !ok || kind != "file" && kind != "path" || !filepath.IsLocal(name) {
			continue
		}
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		as := filepath.ToSlash(filepath.Clean(name))
		sizes[as] = info.Size()
		if total += info.Size(); total > maxBundle {
			continue
		}
		if files[as], err = readFile("file for input "+in.GetName(), name); err != nil {
			return nil, err
		}
	}
	if total > maxBundle {
		return nil, tooLarge("the files that the inputs name", total, sizes, "put them where the steps can fetch them")
	}
	return files, nil
}

// parseInputs reads texts by the types of the inputs that they name.
func (c *cli) parseInputs(ctx context.Context, cl *client, src *source, texts map[string]string, given map[string]any) error {
	p, err := c.describe(ctx, cl, src)
	if err != nil {
		return c.refused(ctx, cl, src, err)
	}
	types := map[string]pipeline.Input{}
	var names []string
	for _, in := range p.GetInputs() {
		types[in.GetName()] = pipeline.Input{Name: in.GetName(), Type: inputType(in)}
		names = append(names, in.GetName())
	}
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		in, ok := types[name]
		if !ok {
			text := fmt.Sprintf("there is no input %s", name)
			if n := expr.Suggest(name, names); n != "" {
				text += fmt.Sprintf(" (did you mean %s?)", n)
			}
			faults = append(faults, text)
			continue
		}
		text := texts[name]
		if file, ok := strings.CutPrefix(text, "@"); ok {
			b, err := readFile("file for input "+name, file)
			if err != nil {
				return err
			}
			text = strings.TrimPrefix(string(b), "\ufeff")
			if in.Type.Kind == "string" {
				given[name] = text
				continue
			}
		}
		v, err := spec.ParseInput(in, text)
		if err != nil {
			faults = append(faults, inputFaults(name, err)...)
			continue
		}
		given[name] = v
	}
	if len(faults) == 0 {
		return nil
	}
	for _, in := range p.GetInputs() {
		_, attempted := texts[in.GetName()]
		if _, ok := given[in.GetName()]; in.GetRequired() && !ok && !attempted {
			faults = append(faults, fmt.Sprintf("input %s is required", in.GetName()))
		}
	}
	return c.refuseInputs(src, p, faults)
}

// inputFaults is what is wrong with one input.
func inputFaults(name string, err error) []string {
	var d *pipeline.Diagnostics
	if !errors.As(err, &d) {
		return []string{fmt.Sprintf("input %s: %v", name, err)}
	}
	var list []string
	for i := range d.List {
		list = append(list, d.List[i].Message)
	}
	return list
}

// inputType is the type of an input as the API tells it.
func inputType(in *api.Input) pipeline.Type {
	t := pipeline.Type{Kind: in.GetType()}
	if v, err := pipeline.DecodeValue([]byte(in.GetValues())); err == nil {
		t.Values, _ = v.([]any)
	}
	return t
}

// refused tells why a pipeline or its inputs were not accepted.
func (c *cli) refused(ctx context.Context, cl *client, src *source, err error) error {
	if d := diagnosticsOf(err); d != nil {
		if onlyInputs(d) {
			var faults []string
			for _, x := range d.GetDiagnostics() {
				faults = append(faults, x.GetMessage())
			}
			return c.inputsRefused(ctx, cl, src, faults, d)
		}
		if c.asJSON {
			if err := c.printJSON(d); err != nil {
				return err
			}
			return quiet(exitInvalid)
		}
		formatDiagnostics(c.painted(c.err), d, []*source{src}, c.colourful(c.err))
		_, _, n := counts(d.GetDiagnostics(), d.GetTruncated())
		return &failure{code: exitInvalid, what: src.file + " was not run: " + n, fix: howToAnswer(d)}
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.InvalidArgument {
		return err
	}
	var faults []string
	for _, detail := range st.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				text := v.GetDescription()
				if f := v.GetField(); f != "" && !strings.HasPrefix(text, f+":") {
					text = f + ": " + text
				}
				faults = append(faults, text)
			}
		}
	}
	if len(faults) == 0 {
		return err
	}
	return c.inputsRefused(ctx, cl, src, faults, nil)
}

// onlyInputs reports whether all findings are about submitted inputs. Those
// about answers name a step and a field of it.
func onlyInputs(d *api.Diagnostics) bool {
	for _, x := range d.GetDiagnostics() {
		if x.GetCode() != "E0502" || strings.Contains(x.GetPath(), ".") {
			return false
		}
	}
	return len(d.GetDiagnostics()) > 0
}

// inputsRefused asks for the pipeline's description, which makes the refusal
// helpful.
func (c *cli) inputsRefused(ctx context.Context, cl *client, src *source, faults []string, d *api.Diagnostics) error {
	if c.asJSON && d != nil {
		if err := c.printJSON(d); err != nil {
			return err
		}
		return quiet(exitInvalid)
	}
	p, err := c.describe(ctx, cl, src)
	if err != nil {
		p = nil // the faults say enough
	}
	return c.refuseInputs(src, p, faults)
}

// refuseInputs lists what is wrong with the inputs, and shows a call.
func (c *cli) refuseInputs(src *source, p *api.Pipeline, faults []string) error {
	if c.asJSON {
		d := &api.Diagnostics{}
		for _, text := range faults {
			d.Diagnostics = append(d.Diagnostics, &api.Diagnostic{
				Code: "E0502", Severity: string(pipeline.SeverityError), Message: text, File: src.file,
			})
		}
		if err := c.printJSON(d); err != nil {
			return err
		}
		return quiet(exitInvalid)
	}
	f := &failure{code: exitInvalid, what: src.file + " was not run: the inputs do not fit", why: strings.Join(faults, "\n")}
	if p != nil {
		f.why += "\n\ninputs of the pipeline:\n" + inputTable(p, "  ")
		f.fix = []string{"example: " + p.GetExample()}
	}
	return f
}

// pairs reads name=value flags.
func pairs(what string, list []string) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, text := range list {
		k, v, ok := strings.Cut(text, "=")
		if !ok || k == "" {
			return nil, usage("write it like name=value", "%q is not an %s", text, what)
		}
		if _, twice := out[k]; twice {
			return nil, usage("", "the %s %s is given twice", what, k)
		}
		out[k] = v
	}
	return out, nil
}
