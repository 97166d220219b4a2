package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) runsPauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause RUN",
		Short: "Let a run begin nothing more until it is resumed",
		Long:  `Pauses a run: the steps that run end and are recorded, nothing new begins, and the run then rests. Times that pass, signals and answers wait with it; a cancel ends it. It goes on with: orchestrator runs resume RUN`,
		Example: `
orchestrator runs pause last
orchestrator runs list --status paused`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs pause last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				run, err := cl.runs.PauseRun(ctx, &api.PauseRunRequest{Id: id})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(run)
				}
				fmt.Fprintf(c.painted(c.out), "%s asked run %s to pause\n", painted("PAUSED", icon("PAUSED")), run.GetId())
				look(c.painted(c.err), [2]string{c.again("runs resume " + run.GetId()), "let it go on"})
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the run as one JSON document")
	return cmd
}

// lift lets a paused run of a server go on.
func (c *cli) lift(ctx context.Context, arg string) error {
	cl, err := c.dial()
	if err != nil {
		return err
	}
	defer cl.close()
	id, err := cl.findRun(ctx, arg)
	if err != nil {
		return err
	}
	run, err := cl.runs.ResumeRun(ctx, &api.ResumeRunRequest{Id: id})
	if err != nil {
		return err
	}
	if c.asJSON {
		return c.printJSON(run)
	}
	fmt.Fprintf(c.painted(c.out), "%s run %s goes on\n", painted("RUNNING", icon("RUNNING")), run.GetId())
	look(c.painted(c.err), [2]string{c.again("runs watch " + run.GetId()), "follow it"})
	return nil
}

// liftHere does so for a run of the embedded store; lifted says that it was paused.
func (cl *client) liftHere(ctx context.Context, id string) (lifted bool, err error) {
	_, err = cl.runs.ResumeRun(ctx, &api.ResumeRunRequest{Id: id})
	if status.Code(err) == codes.Aborted { // it is not paused
		return false, nil
	}
	return err == nil, err
}

// forkFlags are the flags of the verbs that start a run of another's results.
type forkFlags struct {
	answerFlags
	from    string
	at      int32
	inputs  []string
	file    string
	key     string
	preview bool
	detach  bool
	quiet   bool
}

func (c *cli) runsRetryCommand() *cobra.Command {
	return c.forkCommand(pipeline.ForkRetry, &cobra.Command{
		Use:   "retry RUN",
		Short: "Start a failed or cancelled run again where it failed",
		Long:  `Starts a new run that uses every result of a failed or cancelled one, and runs what failed and what follows.`,
		Example: `
orchestrator runs retry last
# say what would run again, and run nothing
orchestrator runs retry last --preview`,
	})
}

func (c *cli) runsRerunCommand() *cobra.Command {
	return c.forkCommand(pipeline.ForkRerun, &cobra.Command{
		Use:   "rerun RUN --from STEP",
		Short: "Run everything again from a step on",
		Long:  `Starts a new run that uses what began before a step of a finished run, and runs that step and everything that began with or after it again.`,
		Example: `
orchestrator runs rerun last --from review
orchestrator runs rerun last --from 'files[2]/summary' --preview`,
	})
}

func (c *cli) runsForkCommand() *cobra.Command {
	return c.forkCommand(pipeline.ForkAt, &cobra.Command{
		Use:   "fork RUN",
		Short: "Start a run from another's results, with other inputs, answers or another definition",
		Long:  `Starts a new run that uses the results which another run had recorded up to a record of its log, by default all of them. A result is used where the step is defined as it was and is given what it was given; all else runs again.`,
		Example: `
# other inputs: only what they reach runs again
orchestrator runs fork last -i depth=5
# an edited definition
orchestrator runs fork last --file report.yaml --preview
# another value of an <AUTO> tag, in place of what was recorded: runs answers lists them
orchestrator runs fork last --auto outline.depth=5
# as it was after record 40 of its log
orchestrator runs fork last --at 40`,
	})
}

func (c *cli) runsReplayCommand() *cobra.Command {
	return c.forkCommand(pipeline.ForkReplay, &cobra.Command{
		Use:     "replay RUN",
		Short:   "Go through a finished run again without running anything",
		Long:    `Starts a new run in which every step ends as it did in a finished run: nothing is launched, nobody is asked, nothing is called. A step that the run has no result of fails.`,
		Example: `orchestrator runs replay last --json`,
	})
}

// forkCommand completes one of the verbs.
func (c *cli) forkCommand(mode pipeline.ForkMode, cmd *cobra.Command) *cobra.Command {
	f := &forkFlags{}
	cmd.Args = args(1, 1, "the id of a run, or last", "orchestrator runs "+string(mode)+" last")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.fork(cmd.Context(), args[0], mode, f) }
	fl := cmd.Flags()
	fl.StringVar(&f.key, "idempotency-key", "", "the same key and request again give the first run")
	fl.BoolVar(&f.detach, "detach", false, "print the new run's id and do not wait; needs a server")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, only the outputs")
	what := "print the run with its steps as one JSON document"
	if mode != pipeline.ForkReplay {
		fl.BoolVar(&f.preview, "preview", false, "say what would be reused and what would run again, and run nothing")
		what += "; with --preview {\"steps\": [...]}"
	}
	switch mode {
	case pipeline.ForkRerun:
		fl.StringVar(&f.from, "from", "", "the step to begin with, by its path as runs get shows it")
	case pipeline.ForkAt:
		fl.Int32Var(&f.at, "at", 0, "the newest record of the log to use; default the newest there is")
		fl.StringArrayVarP(&f.inputs, "input", "i", nil, "another value of an input as name=value; name=@file reads it from a file (repeatable)")
		fl.StringVar(&f.file, "file", "", "another definition of the pipeline")
		f.answerFlags.add(fl)
	case pipeline.ForkRetry, pipeline.ForkReplay:
	}
	c.jsonFlag(cmd, what)
	return cmd
}

// fork starts a run of another's results and sees it through, or says what it would do.
func (c *cli) fork(ctx context.Context, arg string, mode pipeline.ForkMode, f *forkFlags) error {
	switch {
	case mode == pipeline.ForkRerun && f.from == "":
		return usage("orchestrator runs rerun "+arg+" --from STEP", "runs rerun needs the step to begin with; orchestrator runs get %s lists the steps", arg)
	case f.detach && !c.remote():
		return usage("name a server with --server URL, or leave out --detach", "--detach needs a server: without one the run lives in this process")
	}
	open := func() (*client, error) { return c.engine(ctx, plan{}) }
	switch {
	case c.remote():
		open = c.dial
	case f.preview:
		open = func() (*client, error) { return c.reader(ctx) }
	}
	cl, err := open()
	if err != nil {
		return err
	}
	defer cl.close()
	id, err := cl.findRun(ctx, arg)
	if err != nil {
		return err
	}
	req, src, err := c.forkRequest(ctx, cl, id, mode, f)
	if err != nil {
		return err
	}
	if f.preview {
		resp, err := cl.runs.PreviewFork(ctx, req)
		if err != nil {
			return c.forkRefused(ctx, cl, src, err)
		}
		return c.printFork(resp)
	}
	run, err := cl.startFork(ctx, req, f.key)
	if err != nil {
		return c.forkRefused(ctx, cl, src, err)
	}
	return c.attend(ctx, cl, run, f.detach, f.quiet, f.key != "")
}

func (c *cli) forkRefused(ctx context.Context, cl *client, src *source, err error) error {
	if src == nil {
		return err
	}
	return c.refused(ctx, cl, src, err)
}

func (cl *client) startFork(ctx context.Context, req *api.PreviewForkRequest, key string) (*api.Run, error) {
	switch pipeline.ForkMode(req.GetMode()) {
	case pipeline.ForkRetry:
		return cl.runs.RetryRun(ctx, &api.RetryRunRequest{Id: req.GetId(), IdempotencyKey: key})
	case pipeline.ForkRerun:
		return cl.runs.RerunRun(ctx, &api.RerunRunRequest{Id: req.GetId(), From: req.GetFrom(), IdempotencyKey: key})
	case pipeline.ForkReplay:
		return cl.runs.ReplayRun(ctx, &api.ReplayRunRequest{Id: req.GetId(), IdempotencyKey: key})
	case pipeline.ForkAt:
	}
	return cl.runs.ForkRun(ctx, &api.ForkRunRequest{
		Id: req.GetId(), At: req.GetAt(), Inputs: req.GetInputs(), Answers: req.GetAnswers(),
		Source: req.GetSource(), File: req.GetFile(), Files: req.GetFiles(), IdempotencyKey: key,
	})
}

// forkRequest is what the command line asks for, with the definition that it names.
func (c *cli) forkRequest(ctx context.Context, cl *client, id string, mode pipeline.ForkMode, f *forkFlags) (*api.PreviewForkRequest, *source, error) {
	req := &api.PreviewForkRequest{Id: id, Mode: string(mode), From: f.from, At: f.at}
	var src *source
	if f.file != "" {
		var err error
		if src, err = c.readSource(f.file); err != nil {
			return nil, nil, err
		}
		req.Source, req.File, req.Files = src.text, src.file, src.files
	}
	if err := c.forkAnswers(ctx, cl, src, f, req); err != nil {
		return nil, src, err
	}
	texts, err := pairs("input", f.inputs)
	if err != nil || len(texts) == 0 {
		return req, src, err
	}
	given := map[string]any{}
	if src != nil {
		err = c.parseInputs(ctx, cl, src, texts, given)
	} else {
		err = cl.otherInputs(ctx, id, texts, given)
	}
	req.Inputs = string(pipeline.EncodeValue(given))
	return req, src, err
}

// forkAnswers reads what is to stand in place of the run's own answers.
func (c *cli) forkAnswers(ctx context.Context, cl *client, src *source, f *forkFlags, req *api.PreviewForkRequest) error {
	var holes []*api.Hole
	given, faults, err := c.givenAnswers(&f.answerFlags, f.quiet, func() ([]*api.Hole, error) {
		if src != nil {
			p, err := c.describe(ctx, cl, src)
			holes = p.GetHoles()
			return holes, err
		}
		def, err := cl.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: req.GetId()})
		holes = def.GetHoles()
		return holes, err
	})
	switch {
	case err != nil:
		return err
	case faults != nil:
		return answersUnfit("no run was started", holes, faults)
	case len(given) > 0:
		req.Answers = string(pipeline.EncodeValue(given))
	}
	return nil
}

// otherInputs reads texts by the values that they take the place of: a text stays
// one, all else is read as YAML.
func (cl *client) otherInputs(ctx context.Context, id string, texts map[string]string, given map[string]any) error {
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return err
	}
	v, err := pipeline.DecodeValue([]byte(run.GetInputs()))
	if err != nil {
		return fmt.Errorf("read the inputs of run %s: %w", id, err)
	}
	was, _ := v.(map[string]any)
	for name, text := range texts {
		if file, ok := strings.CutPrefix(text, "@"); ok {
			b, err := readFile("file for input "+name, file)
			if err != nil {
				return err
			}
			text = strings.TrimPrefix(string(b), "\ufeff")
		}
		if _, ok := was[name].(string); ok {
			given[name] = text
			continue
		}
		if given[name], err = spec.ParseInput(pipeline.Input{Name: name, Type: pipeline.Type{Kind: "any"}}, text); err != nil {
			return &failure{code: exitInvalid, what: fmt.Sprintf("the value of input %s cannot be read", name), why: err.Error()}
		}
	}
	return nil
}

// printFork shows what a fork would do with each step.
func (c *cli) printFork(resp *api.PreviewForkResponse) error {
	if c.asJSON {
		return c.printJSON(resp)
	}
	w := c.painted(c.out)
	if len(resp.GetSteps()) == 0 {
		fmt.Fprintln(w, "the run has no steps")
		return nil
	}
	var rows [][]string
	count := map[string]int{}
	for _, s := range resp.GetSteps() {
		count[s.GetDecision()]++
		as := map[string]string{
			pipeline.WouldReuse: "COMPLETED", pipeline.WouldRerun: "RUNNING", pipeline.WouldSkip: "SKIPPED", pipeline.WouldUnknown: "WAITING",
		}[s.GetDecision()]
		rows = append(rows, []string{painted(as, icon(as)+" "+s.GetDecision()), s.GetPath(), dim(s.GetKind()), dim(harmlessLine(s.GetReason()))})
	}
	table(w, rows)
	fmt.Fprintln(w, dim(fmt.Sprintf("%s reused, %d run again, %d skipped, %d not known yet; nothing was run",
		plural(count[pipeline.WouldReuse], "step"), count[pipeline.WouldRerun], count[pipeline.WouldSkip], count[pipeline.WouldUnknown])))
	return nil
}
