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

// What the text form of a comparison shows.
const (
	diffText    = 160 // characters of a value
	diffChanges = 20  // of the definition
)

func (c *cli) runsDiffCommand() *cobra.Command {
	limit := int32(20)
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say in what two runs differ",
		Long:  `Compares two runs: how they ended, their definitions by step and key, inputs, outputs, time and cost, and what became of each step, the first that went another way ahead. Long values are cut and told by their digest; --json has them in full up to 64 KiB.`,
		Example: `
orchestrator runs diff 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f last
orchestrator runs diff 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f last --json --limit 2000`,
		Args: args(2, 2, "the ids of two runs; last is the newest", "orchestrator runs diff RUN last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				req := &api.DiffRunsRequest{Limit: limit}
				for i, to := range []*string{&req.A, &req.B} {
					id, err := cl.findRun(ctx, args[i])
					if err != nil {
						return err
					}
					*to = id
				}
				d, err := cl.runs.DiffRuns(ctx, req)
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(d)
				}
				printDiff(c.painted(c.out), d)
				return nil
			})
		},
	}
	cmd.Flags().Int32Var(&limit, "limit", limit, "how many steps to list, at most 2000")
	c.jsonFlag(cmd, "print the comparison as one JSON document")
	return cmd
}

func printDiff(w io.Writer, d *api.RunDiff) {
	a, b := d.GetA(), d.GetB()
	status := func(r *api.Run) string {
		s := r.GetStatus().String()
		return painted(s, icon(s)+" "+word(s))
	}
	lasted := func(ms float64) string {
		if ms == 0 {
			return "-"
		}
		return human.Span(time.Duration(ms * float64(time.Millisecond)))
	}
	rows := [][]string{
		{"", dim("A"), dim("B")},
		{dim("run"), a.GetId(), b.GetId()},
		{dim("pipeline"), strings.TrimSpace(a.GetPipeline() + " " + a.GetVersion()), strings.TrimSpace(b.GetPipeline() + " " + b.GetVersion())},
		{dim("status"), status(a), status(b)},
		{dim("took"), lasted(d.GetDurationA()), lasted(d.GetDurationB())},
		{dim("steps"), fmt.Sprint(a.GetUsage().GetSteps()), fmt.Sprint(b.GetUsage().GetSteps())},
	}
	if spent(a.GetUsage()) || spent(b.GetUsage()) {
		rows = append(rows, []string{dim("usage"), usageText(a.GetUsage()), usageText(b.GetUsage())})
	}
	table(w, rows)
	if d.GetSame() {
		fmt.Fprintln(w, "\n"+painted("COMPLETED", icon("COMPLETED")+" the runs are the same, their times aside"))
		return
	}
	printDefinition(w, d.GetDefinition())
	printValues(w, "Inputs", d.GetInputs())
	if first := d.GetFirst(); first != nil {
		title := "First step that differs"
		if first.GetChange() != "changed" {
			title = "First step that only one has"
		}
		fmt.Fprintf(w, "\n%s  %s %s\n", strong.Render(title), harmlessLine(first.GetPath()), dim(first.GetKind()))
		printStepDiff(w, first)
	}
	if len(d.GetSteps()) > 1 {
		fmt.Fprintf(w, "\n%s\n", strong.Render("Steps that differ"))
		var rows [][]string
		for _, s := range d.GetSteps() {
			rows = append(rows, stepDiffRow(s))
		}
		table(w, rows)
	}
	if d.GetMore() > 0 {
		fmt.Fprintln(w, dim(fmt.Sprintf("  … and %d more; --limit N lists more", d.GetMore())))
	}
	printValues(w, "Outputs", d.GetOutputs())
	fmt.Fprintln(w)
	fmt.Fprintln(w, dim(fmt.Sprintf("%s the same, %d differ, %d only in A, %d only in B",
		plural(int(d.GetStepsSame()), "step"), d.GetStepsChanged(), d.GetStepsOnlyA(), d.GetStepsOnlyB())))
}

func spent(u *api.Usage) bool {
	return u.GetInputTokens()+u.GetOutputTokens() > 0 || u.GetCostUsd() > 0 || u.GetUnpricedCalls() > 0
}

func usageText(u *api.Usage) string {
	text := fmt.Sprintf("%d tokens in, %d out, cost %s", u.GetInputTokens(), u.GetOutputTokens(), costText(u.GetCostUsd(), u.GetUnpricedCalls()))
	if u.GetEstimated() {
		text += ", estimated"
	}
	return text
}

// side is one side of a difference, with the sign that stands before it.
func side(w io.Writer, sign, text string) {
	as := map[string]string{"-": "FAILED", "+": "COMPLETED"}[sign]
	fmt.Fprintln(w, "    "+painted(as, sign+" "+harmlessLine(text)))
}

func printDefinition(w io.Writer, d *api.DefinitionDiff) {
	if d.GetSame() {
		return
	}
	fmt.Fprintf(w, "\n%s\n", strong.Render("Definition"))
	for i, ch := range d.GetChanges() {
		if i == diffChanges {
			fmt.Fprintln(w, dim(fmt.Sprintf("  … and %d more; --json has them", len(d.GetChanges())-i+int(d.GetMore()))))
			break
		}
		what := ch.GetKey()
		switch {
		case ch.GetKey() == "":
			what = "step " + ch.GetStep()
		case ch.GetStep() != "":
			what = ch.GetStep() + ": " + what
		}
		fmt.Fprintf(w, "  %s %s\n", harmlessLine(what), dim(ch.GetChange()))
		if ch.GetLineA() > 0 {
			side(w, "-", fmt.Sprintf("%4d  %s", ch.GetLineA(), cut(ch.GetTextA(), diffText)))
		}
		if ch.GetLineB() > 0 {
			side(w, "+", fmt.Sprintf("%4d  %s", ch.GetLineB(), cut(ch.GetTextB(), diffText)))
		}
	}
	if len(d.GetFiles()) > 0 {
		fmt.Fprintln(w, "  files that differ: "+harmlessLine(cut(strings.Join(d.GetFiles(), ", "), diffText)))
	}
	if len(d.GetChanges())+len(d.GetFiles()) == 0 {
		fmt.Fprintln(w, dim("  the sources say the same; the plans made of them differ"))
	}
}

func valueText(v *api.DiffValue) string {
	if v.GetValue() == "" {
		return fmt.Sprintf("%s, %s", bytesText(int64(v.GetSize())), v.GetDigest())
	}
	text := v.GetValue()
	if len(text) <= diffText {
		return text
	}
	return fmt.Sprintf("%s (%s, %s)", cut(text, diffText), bytesText(int64(v.GetSize())), cut(v.GetDigest(), 20))
}

func sides(w io.Writer, a, b *api.DiffValue) {
	if a != nil {
		side(w, "-", valueText(a))
	}
	if b != nil {
		side(w, "+", valueText(b))
	}
}

func printValues(w io.Writer, title string, list []*api.ValueDiff) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", strong.Render(title))
	for _, v := range list {
		fmt.Fprintln(w, "  "+harmlessLine(v.GetName()))
		sides(w, v.GetA(), v.GetB())
	}
}

func printStepDiff(w io.Writer, d *api.StepDiff) {
	a, b := d.GetA(), d.GetB()
	row := func(s *api.StepSide) string {
		text := word(s.GetStatus().String())
		if s.GetReason() != "" {
			text += ", " + human.Phrase(s.GetReason())
		}
		if s.GetAttempt() > 1 {
			text += fmt.Sprintf(", attempt %d", s.GetAttempt())
		}
		if s.GetCacheHit() {
			text += ", cached"
		}
		if s.GetReusedFrom() != "" {
			text += ", reused"
		}
		if e := s.GetError(); e != nil {
			text += ": " + cut(firstLine(&fault{Message: e.GetMessage()}), diffText)
		}
		return text
	}
	if a != nil {
		side(w, "-", row(a))
	}
	if b != nil {
		side(w, "+", row(b))
	}
	for _, v := range []struct {
		name string
		a, b *api.DiffValue
	}{{"parameters", a.GetParameters(), b.GetParameters()}, {"output", a.GetOutput(), b.GetOutput()}} {
		if v.a != nil || v.b != nil {
			fmt.Fprintln(w, "  "+dim(v.name))
			sides(w, v.a, v.b)
		}
	}
}

func stepDiffRow(d *api.StepDiff) []string {
	lasted := func(s *api.StepSide) string {
		if s.GetDuration() == 0 {
			return "-"
		}
		return human.Span(time.Duration(s.GetDuration() * float64(time.Millisecond)))
	}
	status := func(s *api.StepSide) string {
		if s == nil {
			return ""
		}
		name := s.GetStatus().String()
		return painted(name, icon(name)+" "+word(name))
	}
	notes := strings.Join(d.GetFields(), ", ")
	times := lasted(d.GetA()) + " → " + lasted(d.GetB())
	switch d.GetChange() {
	case "only_a":
		notes, times = "only in A", lasted(d.GetA())
	case "only_b":
		notes, times = "only in B", lasted(d.GetB())
	}
	return []string{"  " + harmlessLine(d.GetPath()), status(d.GetA()), status(d.GetB()), dim(times), notes}
}
