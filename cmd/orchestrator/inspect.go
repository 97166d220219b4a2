package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check pipelines and say everything that is wrong",
		Long: `Checks each pipeline in full, as run does, and runs nothing: keys, names, templates, types, the order of steps. Every finding names its file, line and column and shows the line. - is standard input.

Exit code 2 if any file has an error; warnings alone give 0.`,
		Example: `
orchestrator validate hello.yaml
orchestrator validate pipelines/*.yaml --json
cat hello.yaml | orchestrator validate -`,
		Args: args(1, -1, "at least one file", "orchestrator validate hello.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.validate(cmd.Context(), args) },
	}
	c.jsonFlag(cmd, `print {"diagnostics": [...]}`)
	return cmd
}

func (c *cli) validate(ctx context.Context, files []string) error {
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	cl, err := c.compiler(ctx)
	if err != nil {
		return err
	}
	defer cl.close()
	all := &api.Diagnostics{}
	var sources []*source
	for _, file := range files {
		src, err := c.readSource(file)
		if err != nil {
			return err
		}
		sources = append(sources, src)
		resp, err := cl.pipelines.ValidatePipeline(ctx, &api.ValidatePipelineRequest{Source: src.text, File: src.file, Files: src.files})
		if err != nil {
			return err
		}
		all.Diagnostics = append(all.Diagnostics, resp.GetDiagnostics()...)
		all.Truncated += resp.GetTruncated()
	}
	errs, _, text := counts(all.GetDiagnostics(), all.GetTruncated())
	if c.asJSON {
		err = c.printJSON(all)
	} else {
		w := c.painted(c.out)
		formatDiagnostics(w, all, sources, c.colourful(c.out))
		if len(all.GetDiagnostics()) > 0 {
			fmt.Fprintln(w)
		}
		what := plural(len(files), "file")
		if len(files) == 1 {
			what = files[0]
		}
		if text == "" {
			text = "no errors"
		}
		mark := painted("COMPLETED", icon("COMPLETED"))
		if errs > 0 {
			mark = painted("FAILED", icon("FAILED"))
		}
		fmt.Fprintf(w, "%s %s: %s\n", mark, what, text)
	}
	if err == nil && errs > 0 {
		return quiet(exitInvalid)
	}
	return err
}

func (c *cli) explainCommand() *cobra.Command {
	var mermaid, svg bool
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Tell what a pipeline does and how to call it",
		Long:  `Shows the pipeline's help: what it is for, its inputs with types and defaults, its outputs, what it needs (models, tools, skills, agents, secrets), the <AUTO> tags that a run fills in, its steps and about how many there will be, and an example call. Nothing is run.`,
		Example: `
orchestrator explain hello.yaml
orchestrator explain hello.yaml --mermaid > hello.mmd
orchestrator explain hello.yaml --svg > hello.svg`,
		Args: args(1, 1, "the file of a pipeline", "orchestrator explain hello.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			only, err := drawn(mermaid, svg)
			if err != nil {
				return err
			}
			ctx, stop := c.endOnSignal(cmd.Context())
			defer stop()
			cl, err := c.compiler(ctx)
			if err != nil {
				return err
			}
			defer cl.close()
			src, err := c.readSource(args[0])
			if err != nil {
				return err
			}
			p, err := c.describe(ctx, cl, src)
			if err != nil {
				return c.refused(ctx, cl, src, err)
			}
			return c.printPipeline(p, only)
		},
	}
	drawingFlags(cmd, &mermaid, &svg)
	c.jsonFlag(cmd, "print the description as one JSON document")
	return cmd
}

// drawingFlags gives a verb the forms of the graph.
func drawingFlags(cmd *cobra.Command, mermaid, svg *bool) {
	cmd.Flags().BoolVar(mermaid, "mermaid", false, "print the graph of the steps as Mermaid text")
	cmd.Flags().BoolVar(svg, "svg", false, "print the graph of the steps as an SVG picture")
}

// drawn chooses a form of the graph, or none.
func drawn(mermaid, svg bool) (only func(*api.Pipeline) string, err error) {
	switch {
	case mermaid && svg:
		return nil, usage("leave out one of them", "--mermaid and --svg are two forms of one graph")
	case mermaid:
		return (*api.Pipeline).GetMermaid, nil
	case svg:
		return (*api.Pipeline).GetSvg, nil
	}
	return nil, nil
}

// printPipeline prints a pipeline's description, or only a text of it.
func (c *cli) printPipeline(p *api.Pipeline, only func(*api.Pipeline) string) error {
	switch {
	case only != nil:
		_, err := io.WriteString(c.out, strings.TrimRight(only(p), "\n")+"\n")
		return err
	case c.asJSON:
		return c.printJSON(p)
	}
	explain(c.painted(c.out), p)
	return nil
}

// explain is the help of a pipeline.
func explain(w io.Writer, p *api.Pipeline) {
	title := strong.Render(p.GetId())
	if v := p.GetVersion(); v != "" && v != "0.0.0" {
		title += " " + v
	}
	if n := p.GetName(); n != "" && n != p.GetId() {
		title += dim("  " + n)
	}
	fmt.Fprintln(w, title)
	if d := strings.TrimSpace(p.GetDescription()); d != "" {
		fmt.Fprintln(w, indent(harmless(d)))
	}
	section := func(name string) { fmt.Fprintf(w, "\n%s\n", strong.Render(name)) }
	section("Inputs")
	if len(p.GetInputs()) == 0 {
		fmt.Fprintln(w, "  none")
	} else {
		fmt.Fprint(w, inputTable(p, "  "))
	}
	section("Outputs")
	if len(p.GetOutputs()) == 0 {
		fmt.Fprintln(w, "  the output of each step, by its id")
	}
	for _, o := range p.GetOutputs() {
		fmt.Fprintln(w, "  "+o)
	}
	var needs [][]string
	models := slices.Clone(p.GetModels())
	for i, m := range models {
		if m == "any" { // it asks one and leaves open which
			models[i] = "any model"
		}
	}
	for _, n := range []struct {
		name string
		list []string
	}{{"models", models}, {"tools", p.GetTools()}, {"skills", p.GetSkills()}, {"agents", p.GetAgents()}} {
		if len(n.list) > 0 {
			needs = append(needs, []string{"  " + dim(n.name), strings.Join(n.list, ", ")})
		}
	}
	for i, text := range p.GetTriggers() {
		title := ""
		if i == 0 {
			title = dim("starts by")
		}
		needs = append(needs, []string{"  " + title, text})
	}
	for i, name := range p.GetSecrets() {
		title := ""
		if i == 0 {
			title = dim("secrets")
		}
		needs = append(needs, []string{"  " + title, name + dim("  from "+secretVariable(name)+", or locally from "+name)})
	}
	if len(needs) > 0 {
		section("Needs")
		table(w, needs)
	}
	if len(p.GetHoles()) > 0 {
		section("Filled in when it runs")
		fmt.Fprint(w, holeTable(p.GetHoles(), "  "))
		fmt.Fprintln(w, dim("  by --auto KEY=VALUE or --answers FILE, else by their fallback"))
	}
	section("Steps")
	var rows [][]string
	for _, n := range p.GetGraph().GetNodes() {
		id := n.GetId()
		depth := strings.Count(id, "/")
		if i := strings.LastIndexByte(id, '/'); i >= 0 {
			id = id[i+1:]
		}
		if id == "" {
			id = "(each)"
		}
		what := n.GetKind()
		if n.GetAction() != "" {
			what = n.GetAction()
		}
		after := after(p.GetGraph(), n.GetId())
		if after != "" {
			after = dim("after " + after)
		}
		rows = append(rows, []string{"  " + strings.Repeat("  ", depth) + id, what, after})
	}
	if len(rows) == 0 {
		fmt.Fprintf(w, "  %s\n", plural(int(p.GetSteps()), "step"))
	}
	table(w, rows)
	if e := p.GetEstimate(); e != "" {
		fmt.Fprintln(w, dim("  a run has "+e))
	}
	section("Example")
	fmt.Fprintln(w, "  "+p.GetExample())
}

// secretVariable is the variable of the environment that holds a secret.
func secretVariable(name string) string {
	return "ORCHESTRATOR_SECRET_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// holeTable lists the <AUTO> tags of a pipeline.
func holeTable(holes []*api.Hole, by string) string {
	var rows [][]string
	for _, h := range holes {
		fallback := "open"
		if f := h.GetFallback(); f != "" {
			fallback = "fallback " + cut(plainText(f), 30)
		}
		rows = append(rows, []string{by + h.GetKey(), h.GetType(), fallback, dim(cut(plainText(h.GetPrompt()), 60))})
	}
	var b bytes.Buffer
	table(&b, rows)
	return b.String()
}

// after lists what a step of the root waits for.
func after(g *api.Graph, id string) string {
	var names []string
	for _, e := range g.GetEdges() {
		if e.GetTo() == id {
			from := e.GetFrom()
			names = append(names, from[strings.LastIndexByte(from, '/')+1:])
		}
	}
	return strings.Join(names, ", ")
}

// inputTable lists a pipeline's inputs.
func inputTable(p *api.Pipeline, by string) string {
	var rows [][]string
	for _, in := range p.GetInputs() {
		kind := in.GetType()
		if v := in.GetValues(); v != "" {
			if text, err := yamlText(v); err == nil {
				kind = strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(text), "\n- ", " | "), "- ", "")
			}
		}
		need := "required"
		if !in.GetRequired() {
			need = "optional"
			if d := in.GetDefault(); d != "" && d != "null" {
				need = "default " + d
			}
		}
		rows = append(rows, []string{by + in.GetName(), kind, need, harmlessLine(in.GetDescription())})
	}
	var b bytes.Buffer
	table(&b, rows)
	return b.String()
}

func (c *cli) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of pipelines, for editors",
		Long: `Prints the JSON Schema of the pipeline language with all actions. Editors with a YAML language server complete and check pipelines by it when the first line of the file names it:

  # yaml-language-server: $schema=./orchestrator.schema.json`,
		Example: `
orchestrator schema > orchestrator.schema.json`,
		Args: args(0, 0, "no arguments", "orchestrator schema > orchestrator.schema.json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := c.endOnSignal(cmd.Context())
			defer stop()
			cl, err := c.compiler(ctx)
			if err != nil {
				return err
			}
			defer cl.close()
			s, err := cl.pipelines.GetSchema(ctx, &api.GetSchemaRequest{})
			if err != nil {
				return err
			}
			return c.printRaw([]byte(s.GetSchema()))
		},
	}
}
