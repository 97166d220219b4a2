package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// runFlags are the flags of run.
type runFlags struct {
	inputs     []string
	inputsFile string
	script     string
	workspace  string
	labels     []string
	key        string
	detach     bool
	quiet      bool
}

func (c *cli) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a pipeline and show its progress",
		Long: `Runs the pipeline in FILE (- is standard input) and prints its outputs in the end: progress goes to standard error, the outputs to standard output.

Without a server the run takes place in this process, its commands work in the current directory, and its record is kept in ~/.orchestrator. Ctrl-C cancels the run, and its finally steps still run; a second Ctrl-C leaves at once. A run whose process has died is continued by: orchestrator runs resume RUN

Exit codes: 0 success, 1 the run failed or was cancelled, 2 the pipeline, an input or the command line is not valid, 3 the run waits for a person, 4 the server cannot be reached or refuses, 130 interrupted.`,
		Example: `
orchestrator run hello.yaml -i name=World
# numbers, lists and maps are read by the input's type; @ reads a file
orchestrator run report.yaml -i depth=3 -i 'tags=[a, b]' -i notes=@notes.txt
# all inputs from a file or a pipe, and the result as JSON
jq '.order' order.json | orchestrator run triage.yaml --inputs - --json
# scripted answers in place of a model
orchestrator run summary.yaml --script answers.yaml
# on a server, without waiting
orchestrator run nightly.yaml --server http://127.0.0.1:8080 --detach`,
		Args: args(1, 1, "the file of a pipeline", "orchestrator run hello.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.inputs, "input", "i", nil, "an input as name=value; name=@file reads the value from a file (repeatable)")
	fl.StringVar(&f.inputsFile, "inputs", "", "a YAML or JSON file with the inputs by name; - is standard input")
	fl.StringVar(&f.script, "script", "", "a file of scripted answers that stands in for the model")
	fl.StringVar(&f.workspace, "workspace", "", "the directory that the steps work in; default the current one")
	fl.StringArrayVar(&f.labels, "label", nil, "a label of the run as name=value (repeatable)")
	fl.StringVar(&f.key, "idempotency-key", "", "the same key and request again give the first run")
	fl.BoolVar(&f.detach, "detach", false, "print the run's id and do not wait; needs a server")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, only the outputs")
	c.jsonFlag(cmd, "print the run with its steps as one JSON document")
	return cmd
}

// run starts a run and sees it through.
func (c *cli) run(ctx context.Context, file string, f *runFlags) error {
	if err := c.checkRun(file, f); err != nil {
		return err
	}
	labels, err := pairs("label", f.labels)
	if err != nil {
		return err
	}
	src, err := c.readSource(file)
	if err != nil {
		return err
	}
	cl, err := c.runner(ctx, f)
	if err != nil {
		return err
	}
	defer cl.close()
	inputs, err := c.inputs(ctx, cl, src, f)
	if err != nil {
		return err
	}
	run, err := c.createRun(ctx, cl, &api.CreateRunRequest{
		Source: src.text, File: src.file, Inputs: inputs, Labels: labels, IdempotencyKey: f.key,
	})
	if err != nil {
		return c.refused(ctx, cl, src, err)
	}
	if !f.quiet && !c.asJSON {
		c.warn(ctx, cl, src)
	}
	if f.detach {
		if c.asJSON {
			return c.printJSON(run)
		}
		fmt.Fprintln(c.out, run.GetId())
		look(c.painted(c.err), [2]string{"orchestrator runs watch " + run.GetId(), "follow it"})
		return nil
	}
	if f.key != "" && cl.house != nil { // an earlier run of the key may have lost its process
		if _, err := cl.adopt(ctx, run.GetId()); err != nil {
			return err
		}
	}
	return c.seeThrough(ctx, cl, run.GetId(), f.quiet, time.Time{})
}

// createRun submits. A server that is away for a moment, as during a change of
// its database, is asked again: under a key of its own the request cannot start
// two runs.
func (c *cli) createRun(ctx context.Context, cl *client, req *api.CreateRunRequest) (*api.Run, error) {
	if !c.remote() {
		return cl.runs.CreateRun(ctx, req)
	}
	if req.GetIdempotencyKey() == "" {
		req.IdempotencyKey = "cli-" + uuid.NewString()
	}
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	for end := time.Now().Add(briefly); ; {
		run, err := cl.runs.CreateRun(ctx, req)
		if err == nil || !tryAgain(err) || time.Now().After(end) {
			return run, err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, errInterrupted
		}
	}
}

// briefly is how long a server may be away while a run is submitted.
const briefly = 10 * time.Second

// tryAgain reports whether a server has said that waiting helps.
func tryAgain(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if _, ok := d.(*errdetails.RetryInfo); ok {
			return status.Code(err) == codes.Unavailable
		}
	}
	return false
}

// warn says that the pipeline has warnings.
func (c *cli) warn(ctx context.Context, cl *client, src source) {
	resp, err := cl.pipelines.ValidatePipeline(ctx, &api.ValidatePipelineRequest{Source: src.text, File: src.file})
	if err != nil {
		return // it is only a courtesy
	}
	if _, n, _ := counts(resp.GetDiagnostics(), 0); n > 0 {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", plural(n, "warning")+"; to see what: orchestrator validate "+shellWord(src.file)))
	}
}

// checkRun refuses flags that contradict each other.
func (c *cli) checkRun(file string, f *runFlags) error {
	switch {
	case f.detach && !c.remote():
		return usage("name a server with --server URL, or leave out --detach", "--detach needs a server: without one the run lives in this process")
	case c.remote() && f.script != "":
		return usage("set models.script in the server's configuration", "--script works in this process only, not on a server")
	case c.remote() && f.workspace != "":
		return usage("the server gives each run a directory of its own", "--workspace works in this process only, not on a server")
	case file == "-" && f.inputsFile == "-":
		return usage("give one of them as a file", "the pipeline and --inputs cannot both be read from standard input")
	}
	return nil
}

// runner is the API with an engine that executes what is submitted.
func (c *cli) runner(ctx context.Context, f *runFlags) (*client, error) {
	if c.remote() {
		return c.dial()
	}
	workspace, err := workspaceDir(f.workspace)
	if err != nil {
		return nil, err
	}
	cfg, err := c.embeddedConfig()
	if err != nil {
		return nil, err
	}
	if f.script != "" {
		cfg.Models.Script = f.script
	}
	return c.engine(ctx, plan{cfg: cfg, workspace: workspace})
}

// seeThrough shows a run from a moment on to its end, cancels it when asked to,
// and prints what came of it.
func (c *cli) seeThrough(ctx context.Context, cl *client, id string, hush bool, since time.Time) error {
	show := c.reporter(hush)
	defer c.log.to(nil)
	over := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-c.signals.first:
		case <-over:
			return
		}
		show.note("cancelling; press Ctrl-C again to leave at once")
		_, err := cl.runs.CancelRun(ctx, &api.CancelRunRequest{Id: id})
		if err != nil && status.Code(err) != codes.Aborted { // it has finished meanwhile
			show.note("could not cancel the run: " + status.Convert(err).Message())
		}
	}()
	run, err := c.follow(ctx, cl, id, show, since)
	close(over)
	<-told
	if ctx.Err() != nil {
		w := c.painted(c.err)
		fmt.Fprintf(w, "left run %s as it is\n", id)
		if cl.house != nil {
			look(w, [2]string{"orchestrator runs resume " + id, "continue it"})
			leave(cl.house)
		}
		look(w, [2]string{"orchestrator runs watch " + id, "follow it again"})
		return quiet(exitInterrupted)
	}
	if err != nil {
		return err
	}
	return c.conclude(ctx, cl, run, hush)
}

// leave ends the process soon: what runs is asked to stop, but not waited for.
func leave(h *house) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		h.close()
	}()
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
	}
	os.Exit(exitInterrupted)
}

// conclude prints the result of a run and gives its exit code.
func (c *cli) conclude(ctx context.Context, cl *client, run *api.Run, hush bool) error {
	w := c.painted(c.err)
	tellOutcome(w, run)
	code := outcome(run)
	if c.interrupted() && run.GetStatus() == api.Run_CANCELLED {
		code = exitInterrupted
	}
	if !hush {
		c.whereToLook(w, cl, run)
	}
	if c.asJSON {
		steps, err := cl.steps(ctx, run.GetId())
		if err != nil {
			return err
		}
		if err := c.printRunJSON(run, steps); err != nil {
			return err
		}
	} else if err := c.printOutputs(run); err != nil {
		return err
	}
	if code != 0 {
		return quiet(code)
	}
	return nil
}

func (c *cli) whereToLook(w io.Writer, cl *client, run *api.Run) {
	hints := [][2]string{{"orchestrator runs get " + run.GetId(), "steps, results, errors"}}
	if run.GetStatus() == api.Run_FAILED {
		hints = append(hints, [2]string{"orchestrator runs logs " + run.GetId(), "what the steps printed"})
	}
	if cl.house != nil {
		hints = append(hints, [2]string{"orchestrator serve", "the same in the dashboard"})
	} else {
		hints = append(hints, [2]string{c.server + "/runs/" + run.GetId(), "the same in the dashboard"})
	}
	look(w, hints...)
}

// inputs reads the inputs of the command line by their types, as JSON text.
func (c *cli) inputs(ctx context.Context, cl *client, src source, f *runFlags) (string, error) {
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
			return "", err
		}
		if given, err = spec.ReadInputs(text); err != nil {
			return "", &failure{code: exitInvalid, what: "the inputs in " + f.inputsFile + " cannot be read", why: err.Error()}
		}
	}
	if len(f.inputs) == 0 && len(given) == 0 {
		return "", nil
	}
	texts, err := pairs("input", f.inputs)
	if err != nil {
		return "", err
	}
	if len(texts) > 0 {
		if err := c.parseInputs(ctx, cl, src, texts, given); err != nil {
			return "", err
		}
	}
	return string(pipeline.EncodeValue(given)), nil
}

// parseInputs reads texts by the types of the inputs that they name.
func (c *cli) parseInputs(ctx context.Context, cl *client, src source, texts map[string]string, given map[string]any) error {
	p, err := cl.pipelines.ExplainPipeline(ctx, &api.ExplainPipelineRequest{Source: src.text, File: src.file})
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
			if n := nearest(name, names); n != "" {
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
func (c *cli) refused(ctx context.Context, cl *client, src source, err error) error {
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
		formatDiagnostics(c.painted(c.err), d, []source{src}, c.colourful(c.err))
		_, _, n := counts(d.GetDiagnostics(), d.GetTruncated())
		return &failure{code: exitInvalid, what: src.file + " was not run: " + n}
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

// onlyInputs reports whether all findings are about submitted inputs.
func onlyInputs(d *api.Diagnostics) bool {
	for _, x := range d.GetDiagnostics() {
		if x.GetCode() != "E0502" {
			return false
		}
	}
	return len(d.GetDiagnostics()) > 0
}

// inputsRefused asks for the pipeline's description, which makes the refusal
// helpful.
func (c *cli) inputsRefused(ctx context.Context, cl *client, src source, faults []string, d *api.Diagnostics) error {
	if c.asJSON && d != nil {
		if err := c.printJSON(d); err != nil {
			return err
		}
		return quiet(exitInvalid)
	}
	p, err := cl.pipelines.ExplainPipeline(ctx, &api.ExplainPipelineRequest{Source: src.text, File: src.file})
	if err != nil {
		p = nil // the faults say enough
	}
	return c.refuseInputs(src, p, faults)
}

// refuseInputs lists what is wrong with the inputs, and shows a call.
func (c *cli) refuseInputs(src source, p *api.Pipeline, faults []string) error {
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
