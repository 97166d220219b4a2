package main

import (
	"context"
	"fmt"
	"strings"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// dryRun prints what a request would run.
func (c *cli) dryRun(ctx context.Context, cl *client, src *source, req *api.CreateRunRequest) error {
	resp, err := cl.runs.DryRun(ctx, req)
	if err != nil {
		return c.refused(ctx, cl, src, err)
	}
	if c.asJSON {
		return c.printJSON(resp)
	}
	w := c.painted(c.out)
	for _, s := range resp.GetPlan() {
		depth := strings.Count(s.GetPath(), "/")
		sign, word := painted("COMPLETED", icon("RUNNING")), ""
		switch s.GetWouldRun() {
		case "no":
			sign, word = dim(icon("SKIPPED")), "would not run"
		case "unknown":
			sign, word = painted("WAITING", "?"), "may run"
		}
		if r := s.GetReason(); r != "" {
			word = strings.TrimPrefix(word+": "+r, ": ")
		}
		by := strings.Repeat("  ", depth)
		line := by + sign + " " + s.GetPath() + dim("  "+s.GetKind())
		if word != "" {
			line += "  " + painted("WAITING", harmlessLine(word))
		}
		fmt.Fprintln(w, line)
		for _, text := range []struct{ sign, text string }{{"$ ", s.GetCommand()}, {"> ", s.GetPrompt()}} {
			if text.text == "" {
				continue
			}
			for l := range strings.SplitSeq(strings.TrimRight(harmless(text.text), "\n"), "\n") {
				fmt.Fprintln(w, strings.TrimRight(by+"    "+dim(text.sign)+l, " "))
			}
		}
	}
	fmt.Fprintln(w, dim("nothing was run"))
	return nil
}
