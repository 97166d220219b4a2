package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) runsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List, watch, end, continue and repeat runs",
		Long:  `Everything about runs: those of the embedded store, or of a server with --server. Where a run's id is asked for, last means the newest run.`,
		Example: `
orchestrator runs list --status failed
orchestrator runs get last
orchestrator runs logs last --step build --follow`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.runsListCommand(), c.runsGetCommand(), c.runsWhyCommand(), c.runsWatchCommand(), c.runsLogsCommand(), c.runsArtifactsCommand(), c.runsCancelCommand(), c.runsPauseCommand(), c.runsResumeCommand(),
		c.runsRetryCommand(), c.runsRerunCommand(), c.runsForkCommand(), c.runsReplayCommand(), c.runsSteerCommand(), c.runsCallsCommand(), c.runsAnswersCommand(),
		c.runsDiffCommand(), c.runsExportCommand(), c.runsImportCommand())
	return cmd
}

// pageFlags gives a list its paging.
func pageFlags(cmd *cobra.Command, limit *int32, token *string) {
	cmd.Flags().Int32Var(limit, "limit", *limit, "how many to list, at most 500")
	cmd.Flags().StringVar(token, "page-token", "", "continue a list where the last page ended")
}

func moreHint(w io.Writer, token string) {
	if token != "" {
		fmt.Fprintln(w, dim("there are more: --limit N, or --page-token "+token))
	}
}

func (c *cli) runsListCommand() *cobra.Command {
	limit, token := int32(20), ""
	var status, labels []string
	var pipeline, filter string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List runs, newest first",
		Example: `
orchestrator runs list
orchestrator runs list --status running,queued --pipeline nightly-triage
orchestrator runs list --label customer=42 --json`,
		Args: args(0, 0, "no arguments", "orchestrator runs list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			terms := []string{filter}
			if len(status) > 0 {
				terms = append(terms, "status:"+strings.Join(status, ","))
			}
			if pipeline != "" {
				terms = append(terms, "pipeline:"+quoted(pipeline))
			}
			given, err := pairs("label", labels)
			if err != nil {
				return err
			}
			for k, v := range given {
				terms = append(terms, "label."+k+"="+quoted(v))
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.runs.ListRuns(ctx, &api.ListRunsRequest{
					Filter: strings.TrimSpace(strings.Join(terms, " ")), PageSize: limit, PageToken: token,
				})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printRuns(resp, len(terms) > 1 || filter != "")
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&status, "status", nil, "only runs in these states: queued, running, waiting, paused, completed, failed, cancelled")
	fl.StringVar(&pipeline, "pipeline", "", "only runs of this pipeline")
	fl.StringArrayVar(&labels, "label", nil, "only runs with this label, as name=value (repeatable)")
	fl.StringVar(&filter, "filter", "", `a filter as the API knows it, as in 'status:failed label.team="a b"'`)
	pageFlags(cmd, &limit, &token)
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func quoted(s string) string {
	if strings.ContainsAny(s, " \t\"") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

func (c *cli) printRuns(resp *api.ListRunsResponse, filtered bool) {
	w := c.painted(c.out)
	if len(resp.GetRuns()) == 0 {
		text := "there are no runs yet; start one with: orchestrator run FILE"
		if filtered {
			text = "no run fits the filter"
		}
		fmt.Fprintln(w, text)
		return
	}
	now := time.Now()
	rows := [][]string{{dim("RUN"), dim("PIPELINE"), dim("STATUS"), dim("CREATED"), dim("TOOK"), ""}}
	for _, r := range resp.GetRuns() {
		s := r.GetStatus().String()
		why := r.GetReason()
		if e := r.GetError(); e != nil {
			why = firstLine(&fault{Message: e.GetMessage()})
			if e.GetStep() != "" {
				why = e.GetStep() + ": " + why
			}
		}
		rows = append(rows, []string{
			r.GetId(), cut(r.GetPipeline(), 30), painted(s, icon(s)+" "+word(s)), human.Ago(human.Moment(r.GetCreatedAt()), now),
			took(r.GetStartedAt(), r.GetFinishedAt(), now), dim(cut(human.Phrase(why), 50)),
		})
	}
	table(w, rows)
	moreHint(w, resp.GetNextPageToken())
}

func (c *cli) runsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get RUN",
		Short: "Show a run: its steps, inputs, outputs and error",
		Example: `
orchestrator runs get last
orchestrator runs get 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f --json`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs get last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
				if err != nil {
					return err
				}
				steps, err := cl.steps(ctx, id)
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printRunJSON(run, steps)
				}
				questions, err := cl.questions(ctx, run)
				if err != nil {
					return err
				}
				return c.printRun(ctx, cl, run, steps, questions)
			})
		},
	}
	c.jsonFlag(cmd, "print the run with its steps as one JSON document")
	return cmd
}

// maxSteps is how many step instances a run's page on the terminal lists.
const maxSteps = 300

func (c *cli) printRun(ctx context.Context, cl *client, run *api.Run, steps []*api.Step, questions map[string]string) error {
	w := c.painted(c.out)
	now := time.Now()
	s := run.GetStatus().String()
	head := [][]string{
		{dim("run"), run.GetId()},
		{dim("pipeline"), strings.TrimSpace(run.GetPipeline() + " " + run.GetVersion())},
		{dim("status"), painted(s, icon(s)+" "+word(s))},
	}
	if run.GetReason() != "" {
		head = append(head, []string{dim("reason"), human.Phrase(run.GetReason())})
	}
	head = append(head, []string{dim("created"), exact(human.Moment(run.GetCreatedAt())) + dim("  "+human.Ago(human.Moment(run.GetCreatedAt()), now))})
	if run.GetStartedAt() != nil {
		head = append(head, []string{dim("took"), took(run.GetStartedAt(), run.GetFinishedAt(), now)})
	}
	if id := run.GetParentRun(); id != "" {
		head = append(head, []string{dim("called by"), id})
	}
	if id := run.GetForkedFrom(); id != "" {
		head = append(head, []string{dim("forked from"), fmt.Sprintf("%s at record %d", id, run.GetForkSeq())})
	}
	if len(run.GetLabels()) > 0 {
		head = append(head, []string{dim("labels"), labelText(run.GetLabels())})
	}
	if u := run.GetUsage(); spent(u) {
		head = append(head, []string{dim("usage"), usageText(u)})
	}
	table(w, head)
	switch {
	case cl.orphaned(run):
		fmt.Fprintln(w, "\n"+painted("WAITING", idle(run.GetId())))
	case cl.house != nil && run.GetStatus() == api.Run_WAITING:
		fmt.Fprintln(w, "\n"+painted("WAITING", "unless another process waits with it, continue it with: orchestrator runs resume "+run.GetId()))
	}
	if err := section(w, "Inputs", run.GetInputs()); err != nil {
		return err
	}
	if len(steps) > 0 {
		fmt.Fprintf(w, "\n%s\n", strong.Render("Steps"))
		var rows [][]string
		for i, st := range steps {
			if i == maxSteps {
				rows = append(rows, []string{fmt.Sprintf("  … and %d more; --json prints them all", len(steps)-i)})
				break
			}
			rows = append(rows, stepRow(st, questions, now))
		}
		table(w, rows)
	}
	filled, more := cl.filledIn(ctx, run.GetId())
	printFilledIn(w, run.GetId(), filled, more)
	if e := run.GetError(); e != nil {
		fmt.Fprintf(w, "\n%s\n", strong.Render("Error"))
		where := e.GetKind()
		if e.GetStep() != "" {
			where = "step " + e.GetStep() + " (" + human.Phrase(e.GetKind()) + ")"
		}
		fmt.Fprintln(w, "  "+painted("FAILED", where))
		fmt.Fprintln(w, indent(harmless(e.GetMessage())))
	}
	return section(w, "Outputs", run.GetOutputs())
}

func stepRow(st *api.Step, questions map[string]string, now time.Time) []string {
	s := st.GetStatus().String()
	what := st.GetKind()
	if st.GetAction() != "" {
		what = st.GetAction()
	}
	var notes []string
	if s == "SKIPPED" && st.GetReason() != "" {
		notes = append(notes, skipped(st.GetReason()))
	}
	if w := st.GetWaiting(); w != nil && s == "WAITING" {
		facts := &waitFacts{For: w.GetFor(), Signal: w.GetSignal(), Files: w.GetFiles(), Approval: w.GetApproval()}
		if due := human.Moment(w.GetDue()); !due.IsZero() {
			facts.Due = &due
		}
		notes = append(notes, facts.text(questions, now))
	}
	for _, a := range st.GetArtifacts() {
		notes = append(notes, fmt.Sprintf("published %s %d", a.GetArtifact(), a.GetVersion()))
	}
	if st.GetAttempt() > 1 {
		notes = append(notes, fmt.Sprintf("attempt %d", st.GetAttempt()))
	}
	if st.GetReusedFrom() != "" {
		notes = append(notes, "reused")
	}
	if st.GetModel() != "" {
		notes = append(notes, st.GetModel())
	}
	if e := st.GetError(); e != nil {
		notes = append(notes, cut(firstLine(&fault{Message: e.GetMessage()}), 80))
	}
	time := ""
	if s != "SKIPPED" {
		time = took(st.GetStartedAt(), st.GetFinishedAt(), now)
	}
	return []string{"  " + painted(s, icon(s)+" "+word(s)), st.GetPath(), dim(what), time, dim(strings.Join(notes, ", "))}
}

// section prints a value under a title, if there is one.
func section(w io.Writer, title, text string) error {
	if text == "" || text == "{}" || text == "null" {
		return nil
	}
	y, err := yamlText(text)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n%s\n", strong.Render(title), indent(y))
	return nil
}

// questions are what a run asks people now, by the ids of the approvals.
func (cl *client) questions(ctx context.Context, run *api.Run) (map[string]string, error) {
	questions := map[string]string{}
	if finished(run) {
		return questions, nil
	}
	open, err := cl.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", RunId: run.GetId(), PageSize: 500})
	for _, a := range open.GetApprovals() {
		questions[a.GetId()] = a.GetQuestion()
	}
	return questions, err
}

func exact(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

func labelText(labels map[string]string) string {
	var list []string
	for _, k := range sortedKeys(labels) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, " ")
}

func (c *cli) runsCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cancel RUN",
		Short:   "Cancel a run",
		Long:    `Asks a run to end: running steps are stopped, finally steps still run, then the run is cancelled. The command does not wait for that; runs watch does.`,
		Example: "orchestrator runs cancel last",
		Args:    args(1, 1, "the id of a run, or last", "orchestrator runs cancel last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				run, err := cl.runs.CancelRun(ctx, &api.CancelRunRequest{Id: id})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(run)
				}
				fmt.Fprintf(c.painted(c.out), "%s asked run %s to end\n", painted("CANCELLED", icon("CANCELLED")), run.GetId())
				if cl.orphaned(run) {
					fmt.Fprintln(c.painted(c.err), "  no process executes it now: it ends when it is continued, with: orchestrator runs resume "+run.GetId())
				}
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the run as one JSON document")
	return cmd
}

func (c *cli) runsResumeCommand() *cobra.Command {
	hush, script := false, ""
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Continue a run that is paused or parked, or whose process has died",
		Long: `Continues a run of the embedded store where it stopped, in this process and in the run's own directory: what has finished is not repeated. That may be a run whose process has died, or one that was left parked because it waits: for people, a time, a signal or files. A run that another process executes is left to it. A pause ends with it. A run that was begun with run --script, or with replay, goes on with the same file.

On a server only paused runs need to be resumed: its replicas take over all others by themselves.`,
		Example: `
orchestrator runs list --status queued
orchestrator runs resume last`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs resume last"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.resume(cmd.Context(), args[0], script, hush) },
	}
	cmd.Flags().BoolVarP(&hush, "quiet", "q", false, "no progress, only the outputs")
	cmd.Flags().StringVar(&script, "script", "", "a file of scripted answers that stands in for the model; default: what the run was begun with")
	c.jsonFlag(cmd, "print the run with its steps as one JSON document")
	return cmd
}

// findHere is findRun before there is an engine.
func (c *cli) findHere(ctx context.Context, cfg *config, arg string) (string, error) {
	if arg != "last" {
		return arg, nil
	}
	cl, err := c.embed(ctx, plan{cfg: cfg})
	if err != nil {
		return "", err
	}
	defer cl.close()
	return cl.findRun(ctx, arg)
}

func (c *cli) resume(ctx context.Context, arg, script string, hush bool) error {
	if c.remote() {
		if script != "" {
			return errScriptAfar
		}
		return c.lift(ctx, arg)
	}
	cfg, err := c.embeddedConfig()
	if err != nil {
		return err
	}
	id, err := c.findHere(ctx, cfg, arg)
	if err != nil {
		return err
	}
	from := standIn{Script: script}
	if script == "" {
		if from, err = c.keptStandIn(id); err != nil {
			return err
		}
	}
	from.apply(cfg)
	cl, err := c.engine(ctx, plan{cfg: cfg})
	if err != nil {
		return err
	}
	defer cl.close()
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return err
	}
	if finished(run) {
		return &failure{
			code: exitRefused, what: fmt.Sprintf("run %s has already finished: it is %s", id, word(run.GetStatus().String())),
			fix: []string{"orchestrator runs get " + id},
		}
	}
	since := time.Now()
	lifted, err := cl.liftHere(ctx, run.GetId())
	if err != nil {
		return err
	}
	taken, err := cl.adopt(ctx, run.GetId())
	if err != nil {
		return err
	}
	if !taken && lifted {
		fmt.Fprintf(c.painted(c.out), "%s run %s goes on in the process that executes it\n", painted("RUNNING", icon("RUNNING")), id)
		return nil
	}
	if !taken {
		return &failure{
			code: exitRefused, what: fmt.Sprintf("run %s is executed by another process", id),
			fix: []string{"follow it with: orchestrator runs watch " + id},
		}
	}
	return c.seeThrough(ctx, cl, run.GetId(), hush, since)
}

func finished(run *api.Run) bool {
	s := run.GetStatus()
	return s == api.Run_COMPLETED || s == api.Run_FAILED || s == api.Run_CANCELLED
}
