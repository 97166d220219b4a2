package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// runFlags are the flags of run.
type runFlags struct {
	answerFlags
	inputs     []string
	inputsFile string
	script     string
	cassette   string
	workspace  string
	labels     []string
	key        string
	dryRun     bool
	detach     bool
	quiet      bool
}

func (c *cli) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a pipeline and show its progress",
		Long: `Runs the pipeline in FILE (- is standard input) and prints its outputs in the end: progress goes to standard error, the outputs to standard output. The files that the pipeline names (imports, prompts, skills, bundle) travel with it; skills are looked for beside it, then in ~/.orchestrator/skills.

Without a server the run takes place in this process, its commands work in the current directory, and its record is kept in ~/.orchestrator. Ctrl-C cancels the run, and its finally steps still run; a second Ctrl-C leaves at once. A run whose process has died is continued by: orchestrator runs resume RUN

On a server the run has a directory of its own: files that inputs of the types file and path name are put there, at the same relative path.

What a pipeline asks people is asked here when this is a terminal. Elsewhere the command says what is asked and how to answer, and ends with code 3: the run stays parked until it is answered and continued.

Exit codes: 0 success, 1 the run failed or was cancelled, 2 the pipeline, an input or the command line is not valid, 3 the run waits for a person, 4 the server cannot be reached or refuses, 130 interrupted.`,
		Example: `
orchestrator run hello.yaml -i name=World
# numbers, lists and maps are read by the input's type; @ reads a file
orchestrator run report.yaml -i depth=3 -i 'tags=[a, b]' -i notes=@notes.txt
# all inputs from a file or a pipe, and the result as JSON
jq '.order' order.json | orchestrator run triage.yaml --inputs - --json
# fill in <AUTO> tags: one by one, or all from a file
orchestrator run report.yaml --answers report.answers.yaml --auto outline.depth=3
# see what would run, and run nothing
orchestrator run report.yaml -i depth=3 --dry-run
# scripted answers in place of a model
orchestrator run summary.yaml --script script.yaml
# on a server, without waiting
orchestrator run nightly.yaml --server http://127.0.0.1:8080 --detach`,
		Args: args(1, 1, "the file of a pipeline", "orchestrator run hello.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.inputs, "input", "i", nil, "an input as name=value; name=@file reads the value from a file (repeatable)")
	fl.StringVar(&f.inputsFile, "inputs", "", "a YAML or JSON file with the inputs by name; - is standard input")
	f.answerFlags.add(fl)
	fl.StringVar(&f.script, "script", "", "a file of scripted answers that stands in for the model")
	fl.StringVar(&f.workspace, "workspace", "", "the directory that the steps work in; default the current one")
	fl.StringArrayVar(&f.labels, "label", nil, "a label of the run as name=value (repeatable)")
	fl.StringVar(&f.key, "idempotency-key", "", "the same key and request again give the first run")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would run, with command lines and prompts, and run nothing")
	fl.BoolVar(&f.detach, "detach", false, "print the run's id and do not wait; needs a server")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, only the outputs")
	c.jsonFlag(cmd, "print the run with its steps as one JSON document; with --dry-run {\"plan\": [...]}")
	return cmd
}

// run starts a run and sees it through.
func (c *cli) run(ctx context.Context, file string, f *runFlags) error {
	if err := c.checkRun(file, f); err != nil {
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
	req, err := c.request(ctx, cl, src, f)
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.dryRun(ctx, cl, src, req)
	}
	run, err := c.createRun(ctx, cl, req)
	if err != nil {
		return c.refused(ctx, cl, src, err)
	}
	c.keepStandIn(cl, run.GetId(), f.standIn())
	if !f.quiet && !c.asJSON {
		c.warn(ctx, cl, src)
	}
	return c.attend(ctx, cl, run, f.detach, f.quiet, f.key != "")
}

// attend stays with a run that has just been made until it ends, or, detached, says
// where to follow it.
func (c *cli) attend(ctx context.Context, cl *client, run *api.Run, detach, quiet, keyed bool) error {
	if detach {
		if c.asJSON {
			return c.printJSON(run)
		}
		fmt.Fprintln(c.out, run.GetId())
		look(c.painted(c.err), [2]string{c.again("runs watch " + run.GetId()), "follow it"})
		return nil
	}
	if keyed && cl.house != nil { // an earlier run of the key may have lost its process
		if _, err := cl.adopt(ctx, run.GetId()); err != nil {
			return err
		}
	}
	return c.seeThrough(ctx, cl, run.GetId(), quiet, time.Time{})
}

// request is what the command line asks to run.
func (c *cli) request(ctx context.Context, cl *client, src *source, f *runFlags) (*api.CreateRunRequest, error) {
	labels, err := pairs("label", f.labels)
	if err != nil {
		return nil, err
	}
	inputs, err := c.inputs(ctx, cl, src, f)
	if err != nil {
		return nil, err
	}
	answers, err := c.answers(ctx, cl, src, f)
	if err != nil {
		return nil, err
	}
	req := &api.CreateRunRequest{
		Source: src.text, File: src.file, Files: src.files, Labels: labels, IdempotencyKey: f.key,
	}
	if len(inputs) > 0 {
		req.Inputs = string(pipeline.EncodeValue(inputs))
	}
	if len(answers) > 0 {
		req.Answers = string(pipeline.EncodeValue(answers))
	}
	if c.remote() && len(inputs) > 0 {
		p, err := c.describe(ctx, cl, src)
		if err != nil {
			return nil, c.refused(ctx, cl, src, err)
		}
		if req.Uploads, err = c.uploads(p, inputs); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// createRun submits. A server that is away for a moment, as during a change of
// its database, is asked again: under a key of its own the request cannot start
// two runs.
func (c *cli) createRun(ctx context.Context, cl *client, req *api.CreateRunRequest) (*api.Run, error) {
	if !c.remote() {
		return cl.runs.CreateRun(ctx, req)
	}
	return c.once(ctx, &req.IdempotencyKey, func(ctx context.Context) (*api.Run, error) { return cl.runs.CreateRun(ctx, req) })
}

// once asks a server for something that must be done once: with a key of its own, if
// the caller has none, it can ask again.
func (c *cli) once(ctx context.Context, key *string, ask func(context.Context) (*api.Run, error)) (*api.Run, error) {
	if *key == "" {
		*key = "cli-" + uuid.NewString()
	}
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	for end := time.Now().Add(briefly); ; {
		run, err := ask(ctx)
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
func (c *cli) warn(ctx context.Context, cl *client, src *source) {
	resp, err := cl.pipelines.ValidatePipeline(ctx, &api.ValidatePipelineRequest{Source: src.text, File: src.file, Files: src.files})
	if err != nil {
		return // it is only a courtesy
	}
	if _, n, _ := counts(resp.GetDiagnostics(), 0); n > 0 {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", plural(n, "warning")+"; to see what: orchestrator validate "+shellWord(src.file)))
	}
}

var errScriptAfar = usage("set models.script in the server's configuration", "--script works in this process only, not on a server")

// checkRun refuses flags that contradict each other.
func (c *cli) checkRun(file string, f *runFlags) error {
	switch {
	case f.detach && f.dryRun:
		return usage("leave out one of them", "--dry-run runs nothing that --detach could leave")
	case f.detach && !c.remote():
		return usage("name a server with --server URL, or leave out --detach", "--detach needs a server: without one the run lives in this process")
	case c.remote() && f.script != "":
		return errScriptAfar
	case c.remote() && f.cassette != "":
		return usage("leave out --server", "replay works in this process only, not on a server")
	case c.remote() && f.workspace != "":
		return usage("the server gives each run a directory of its own", "--workspace works in this process only, not on a server")
	case file == "-" && f.inputsFile == "-":
		return usage("give one of them as a file", "the pipeline and --inputs cannot both be read from standard input")
	}
	return nil
}

// standIn is what answers in place of models.
func (f *runFlags) standIn() standIn { return standIn{Script: f.script, Cassette: f.cassette} }

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
	f.standIn().apply(cfg)
	p := plan{cfg: cfg, workspace: workspace}
	if f.dryRun {
		return c.embed(ctx, p)
	}
	return c.engine(ctx, p)
}

// seeThrough shows a run from a moment on to its end, asks what it asks people,
// cancels it when asked to, and prints what came of it.
func (c *cli) seeThrough(ctx context.Context, cl *client, id string, hush bool, since time.Time) error {
	f, err := c.newFollower(ctx, cl, id, hush, since)
	if err != nil {
		return err
	}
	for {
		run, err := c.followOrCancel(ctx, f)
		if ctx.Err() != nil {
			w := c.painted(c.err)
			fmt.Fprintf(w, "left run %s as it is\n", id)
			if cl.house != nil {
				look(w, [2]string{c.again("runs resume " + id), "continue it"})
				leave(cl.house)
			}
			look(w, [2]string{c.again("runs watch " + id), "follow it again"})
			return quiet(exitInterrupted)
		}
		if err != nil {
			return err
		}
		if len(f.open) == 0 || finished(run) || !c.asks() {
			return c.conclude(ctx, f, run)
		}
		if goes, err := c.ask(ctx, f); err != nil || !goes {
			if err != nil {
				return err
			}
			return c.conclude(ctx, f, run)
		}
	}
}

// followOrCancel follows a run; the first signal cancels it.
func (c *cli) followOrCancel(ctx context.Context, f *follower) (*api.Run, error) {
	show := c.reporter(f.hush)
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
		_, err := f.cl.runs.CancelRun(ctx, &api.CancelRunRequest{Id: f.id})
		if err != nil && status.Code(err) != codes.Aborted { // it has finished meanwhile
			show.note("could not cancel the run: " + status.Convert(err).Message())
		}
	}()
	run, err := f.follow(ctx, show)
	close(over)
	<-told
	return run, err
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
func (c *cli) conclude(ctx context.Context, f *follower, run *api.Run) error {
	w := c.painted(c.err)
	tellOutcome(w, run)
	code := outcome(run)
	if s := run.GetStatus(); c.interrupted() && (s == api.Run_CANCELLED || s == api.Run_WAITING) {
		code = exitInterrupted
	}
	kept := c.keepEvidence(ctx, f.cl, run)
	switch {
	case run.GetStatus() == api.Run_WAITING:
		c.tellQuestions(w, f)
	case !f.hush:
		c.whereToLook(w, f.cl, run)
		if kept != "" {
			look(w, [2]string{kept, "prompts, answers, report.md"})
		}
	}
	if c.asJSON {
		steps, err := f.cl.steps(ctx, run.GetId())
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
	hints := [][2]string{{c.again("runs get " + run.GetId()), "steps, results, errors"}}
	if run.GetStatus() == api.Run_FAILED {
		hints = append(hints, [2]string{c.again("runs logs " + run.GetId()), "what the steps printed"})
	}
	if cl.house != nil {
		hints = append(hints, [2]string{"orchestrator serve", "the same in the dashboard"})
	} else {
		hints = append(hints, [2]string{c.server + "/runs/" + run.GetId(), "the same in the dashboard"})
	}
	look(w, hints...)
}
