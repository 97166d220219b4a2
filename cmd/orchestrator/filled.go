package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// filledShown is how many values of <AUTO> tags the page of a run lists.
const filledShown = 20

func (c *cli) runsAnswersCommand() *cobra.Command {
	asFile := false
	cmd := &cobra.Command{
		Use:   "answers RUN [STEP]",
		Short: "List what the <AUTO> tags of a run were filled in with",
		Long: `Lists what the <AUTO> tags of a run, or of one of its steps, were filled in with: the value, where it is from (a model, an answer of another run's model, an answer given with the run, a fallback), which model gave it and what that has cost.

With --yaml as a file that run and runs fork take with --answers. To change a value that was recorded, fork the run with another one: what was given the old value, and what follows, runs again.`,
		Example: `
orchestrator runs answers last
# another value in place of a recorded one
orchestrator runs fork last --auto outline.depth=5 --preview
# edit all of them
orchestrator runs answers last --yaml > answers.yaml
orchestrator runs fork last --answers answers.yaml`,
		Args: args(1, 2, "the id of a run, or last; then the path of a step", "orchestrator runs answers last"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, words[0])
				if err != nil {
					return err
				}
				list, err := cl.allAnswers(ctx, id, append(words[1:], "")[0])
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(&api.ListAnswersResponse{Answers: list})
				}
				if asFile {
					return printAnswersFile(c.out, list)
				}
				w := c.painted(c.out)
				if len(list) == 0 {
					fmt.Fprintln(w, "no <AUTO> tag was filled in")
					return nil
				}
				table(w, append([][]string{{"TAG", "VALUE", "FROM", "KIND", "TOKENS", "COST"}}, answerRows("", list)...))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asFile, "yaml", false, "print a file for --answers")
	c.jsonFlag(cmd, `print {"answers": [...]}`)
	cmd.MarkFlagsMutuallyExclusive("yaml", "json")
	return cmd
}

// allAnswers reads what the tags of a step, or of all steps, were filled in with.
func (cl *client) allAnswers(ctx context.Context, id, step string) ([]*api.Answer, error) {
	var list []*api.Answer
	for token := ""; ; {
		page, err := cl.calls.ListAnswers(ctx, &api.ListAnswersRequest{Id: id, Step: step, PageSize: 500, PageToken: token})
		if err != nil {
			return nil, err
		}
		list = append(list, page.GetAnswers()...)
		if token = page.GetNextPageToken(); token == "" {
			return list, nil
		}
	}
}

// answerRows are answers as rows of a table.
func answerRows(by string, list []*api.Answer) [][]string {
	var rows [][]string
	for _, a := range list {
		tokens, cost := "", ""
		if u := a.GetUsage(); u != nil {
			tokens, cost = fmt.Sprintf("%d/%d", u.GetInputTokens(), u.GetOutputTokens()), costText(u.GetCostUsd(), u.GetUnpricedCalls())
		}
		rows = append(rows, []string{by + a.GetKey(), cut(plainText(a.GetValue()), 60), answerSource(a), dim(human.Phrase(a.GetKind())), tokens, cost})
	}
	return rows
}

// answerSource says where an answer is from.
func answerSource(a *api.Answer) string {
	who := harmlessLine(a.GetModel())
	if a.GetScripted() {
		who = "scripted model"
	}
	switch a.GetFrom() {
	case "answer":
		return "given with the run"
	case "model":
		if a.GetUsage() == nil {
			return who + ", asked before"
		}
		return who
	case "cache":
		return who + ", from the cache"
	}
	return human.Phrase(a.GetFrom())
}

// printAnswersFile prints answers as a file of answers.
func printAnswersFile(w io.Writer, list []*api.Answer) error {
	values := map[string]any{}
	for _, a := range list {
		if a.GetValue() == "" {
			values[a.GetKey()] = nil
			continue
		}
		v, err := pipeline.DecodeValue([]byte(a.GetValue()))
		if err != nil {
			return fmt.Errorf("read the answer to %s: %w", a.GetKey(), err)
		}
		values[a.GetKey()] = v
	}
	text, err := yamlText(string(pipeline.EncodeValue(values)))
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	return err
}

// filledIn are the first values of a run's <AUTO> tags; none where its pipeline
// has no tags, or is not known any more.
func (cl *client) filledIn(ctx context.Context, id string) (list []*api.Answer, more bool) {
	def, err := cl.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: id})
	if err != nil || len(def.GetHoles()) == 0 {
		return nil, false
	}
	page, err := cl.calls.ListAnswers(ctx, &api.ListAnswersRequest{Id: id, PageSize: filledShown})
	if err != nil {
		return nil, false
	}
	return page.GetAnswers(), page.GetNextPageToken() != ""
}

func printFilledIn(w io.Writer, id string, list []*api.Answer, more bool) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", strong.Render("Filled in"))
	rows := answerRows("  ", list)
	if more {
		rows = append(rows, []string{"  … and more: orchestrator runs answers " + id})
	}
	table(w, rows)
}
