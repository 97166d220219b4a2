package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// reportValue is how many characters of a step's output a report shows.
const reportValue = 400

func (c *cli) reportCommand() *cobra.Command {
	format, output, evidence := "md", "", false
	cmd := &cobra.Command{
		Use:   "report RUN",
		Short: "Write a readable account of one run",
		Long: `Writes what became of a run for people to read: how it ended, its inputs and outputs, each step with its time, attempts and error, what models and tools were asked and what each model cost, what people decided, what was published, what it cost.

With --evidence it fills the folder runs/RUN of the home instead: report.md, run.json, each step, the composed prompt of each call with the sizes of its parts and the answer, and the artifacts. A run without a server that has asked models does so by itself.

The formats are md (Markdown), html (one file without scripts that needs no other) and json (the run with its steps).`,
		Example: `
orchestrator report last
orchestrator report last --format html --output report.html
orchestrator report last --evidence`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator report last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			write := map[string]func(io.Writer, *account) error{"md": writeMarkdown, "html": writeHTML}[format]
			if write == nil && format != "json" {
				return usage("orchestrator report "+args[0]+" --format html", "there is no format %q; there are md, html and json", format)
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				if evidence {
					dir := c.evidenceDir(id)
					if err := c.writeEvidence(ctx, cl, id, dir); err != nil {
						return err
					}
					fmt.Fprintln(c.out, dir)
					return nil
				}
				a, err := cl.account(ctx, id)
				if err != nil {
					return err
				}
				var b bytes.Buffer
				if write != nil {
					err = write(&b, a)
				} else {
					to := *c
					to.out = &b
					err = to.printRunJSON(a.Run, a.Steps)
				}
				if err != nil {
					return err
				}
				if output == "" {
					_, err := c.out.Write(b.Bytes())
					return err
				}
				if err := os.WriteFile(output, b.Bytes(), 0o600); err != nil {
					return &failure{code: exitInvalid, what: "cannot write " + output, why: cause(err)}
				}
				fmt.Fprintf(c.painted(c.err), "%s wrote %s\n", painted("COMPLETED", icon("COMPLETED")), output)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "the format: md, html or json")
	cmd.Flags().StringVarP(&output, "output", "o", "", "a file to write to in place of standard output")
	cmd.Flags().BoolVar(&evidence, "evidence", false, "fill the run's folder in the home, and print where that is")
	cmd.MarkFlagsMutuallyExclusive("evidence", "output")
	cmd.MarkFlagsMutuallyExclusive("evidence", "format")
	return cmd
}

// account is what a report tells.
type account struct {
	Run       *api.Run
	Steps     []*api.Step
	Approvals []*api.Approval
	Artifacts []*api.Artifact
	Calls     []*api.Call
}

func (cl *client) account(ctx context.Context, id string) (*account, error) {
	a := &account{}
	var err error
	if a.Run, err = cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id}); err != nil {
		return nil, err
	}
	if a.Steps, err = cl.steps(ctx, id); err != nil {
		return nil, err
	}
	for token := ""; ; {
		page, err := cl.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{RunId: id, PageSize: 500, PageToken: token})
		if err != nil {
			return nil, err
		}
		a.Approvals = append(a.Approvals, page.GetApprovals()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	list, err := cl.artifacts.ListArtifacts(ctx, &api.ListArtifactsRequest{RunId: id})
	if err != nil {
		return nil, err
	}
	a.Artifacts = list.GetArtifacts()
	if a.Calls, err = cl.allCalls(ctx, id, ""); err != nil {
		return nil, err
	}
	return a, nil
}

// Head are the facts of the run, as name and value.
func (a *account) Head() [][2]string {
	r := a.Run
	utc := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	fork := r.GetForkedFrom()
	if fork != "" {
		fork = fmt.Sprintf("%s at record %d", fork, r.GetForkSeq())
	}
	lasted := ""
	if r.GetFinishedAt() != nil {
		lasted = took(r.GetStartedAt(), r.GetFinishedAt(), time.Time{})
	}
	used := ""
	if spent(r.GetUsage()) {
		used = usageText(r.GetUsage())
	}
	var head [][2]string
	for _, x := range [][2]string{
		{"run", r.GetId()},
		{"pipeline", strings.TrimSpace(r.GetPipeline() + " " + r.GetVersion())},
		{"status", word(r.GetStatus().String())},
		{"reason", human.Phrase(r.GetReason())},
		{"created", utc(human.Moment(r.GetCreatedAt()))},
		{"started", utc(human.Moment(r.GetStartedAt()))},
		{"finished", utc(human.Moment(r.GetFinishedAt()))},
		{"took", lasted},
		{"steps", fmt.Sprint(r.GetUsage().GetSteps())},
		{"usage", used},
		{"labels", labelText(r.GetLabels())},
		{"called by", r.GetParentRun()},
		{"forked from", fork},
		{"plan", r.GetPlanDigest()},
	} {
		if x[1] != "" {
			head = append(head, x)
		}
	}
	return head
}

// Failure is why the run failed, in one line and in full.
func (a *account) Failure() (where, text string) {
	e := a.Run.GetError()
	if e == nil {
		return "", ""
	}
	where = human.Phrase(e.GetKind())
	if e.GetStep() != "" {
		where = "step " + e.GetStep() + " (" + where + ")"
	}
	return where, harmless(e.GetMessage())
}

// Values are the inputs and outputs, as title and YAML.
func (a *account) Values() ([][2]string, error) {
	var list [][2]string
	for _, v := range [][2]string{{"Inputs", a.Run.GetInputs()}, {"Outputs", a.Run.GetOutputs()}} {
		if v[1] == "" || v[1] == "{}" || v[1] == "null" {
			continue
		}
		y, err := yamlText(v[1])
		if err != nil {
			return nil, err
		}
		list = append(list, [2]string{v[0], harmless(y)})
	}
	return list, nil
}

// stepHead are the columns of the table of steps.
var stepHead = []string{"Step", "Kind", "Status", "Took", "Attempt", "Cost", "Notes"}

// StepRows are the steps as a table.
func (a *account) StepRows() [][]string {
	var rows [][]string
	for _, s := range a.Steps {
		kind := s.GetKind()
		if s.GetAction() != "" {
			kind += " " + s.GetAction()
		}
		lasted, cost := "", ""
		if s.GetFinishedAt() != nil && s.GetStatus() != api.Step_SKIPPED {
			lasted = took(s.GetStartedAt(), s.GetFinishedAt(), time.Time{})
		}
		if spent(s.GetUsage()) {
			cost = usageText(s.GetUsage())
		}
		var notes []string
		note := func(text string) {
			if text != "" {
				notes = append(notes, harmlessLine(cut(text, reportValue)))
			}
		}
		note(human.Phrase(s.GetReason()))
		note(s.GetModel())
		if s.GetCacheHit() {
			note("cached")
		}
		if s.GetReusedFrom() != "" {
			note("reused from " + s.GetReusedFrom())
		}
		if e := s.GetError(); e != nil {
			note(firstLine(&fault{Message: e.GetMessage()}))
		}
		rows = append(rows, []string{
			harmlessLine(s.GetPath()), harmlessLine(kind), word(s.GetStatus().String()), lasted, fmt.Sprint(s.GetAttempt()), cost, strings.Join(notes, "; "),
		})
	}
	return rows
}

var decisionHead = []string{"Step", "Question", "Status", "Decision", "By", "At", "Comment"}

// DecisionRows are what people were asked and said.
func (a *account) DecisionRows() [][]string {
	var rows [][]string
	for _, q := range slices.Backward(a.Approvals) { // the oldest first
		row := func(what, by, at, comment string) {
			rows = append(rows, []string{harmlessLine(q.GetPath()), harmlessLine(q.GetQuestion()), human.Phrase(q.GetStatus()), harmlessLine(what), harmlessLine(by), at, harmlessLine(comment)})
		}
		for _, d := range q.GetDecisions() {
			what := d.GetDecision()
			if v := d.GetValue(); v != "" && v != "null" {
				what += ": " + cut(v, reportValue)
			}
			row(what, d.GetActor(), human.Moment(d.GetAt()).UTC().Format("2006-01-02 15:04:05 UTC"), d.GetComment())
		}
		if len(q.GetDecisions()) == 0 {
			row("", "", "", "")
		}
	}
	return rows
}

var artifactHead = []string{"Artifact", "Version", "Step", "Value", "Size", "Digest"}

// ArtifactRows are what the run has published.
func (a *account) ArtifactRows() [][]string {
	var rows [][]string
	for _, v := range a.Artifacts {
		size := ""
		if v.GetDigest() != "" {
			size = bytesText(int64(v.GetSize()))
		}
		rows = append(rows, []string{harmlessLine(v.GetArtifact()), fmt.Sprint(v.GetVersion()), harmlessLine(v.GetProducer()), harmlessLine(cut(v.GetValue(), reportValue)), size, v.GetDigest()})
	}
	return rows
}

// reportTable is a table of a report.
type reportTable struct {
	Title string
	Head  []string
	Rows  [][]string
}

// Tables are those that have rows.
func (a *account) Tables() []reportTable {
	var list []reportTable
	for _, t := range []reportTable{
		{"Steps", stepHead, a.StepRows()},
		{"Models", modelHead, a.ModelRows()},
		{"Calls", callHead, a.CallRows()},
		{"Decisions", decisionHead, a.DecisionRows()},
		{"Artifacts", artifactHead, a.ArtifactRows()},
	} {
		if len(t.Rows) > 0 {
			list = append(list, t)
		}
	}
	return list
}
