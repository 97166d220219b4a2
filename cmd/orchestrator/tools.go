package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/database"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// toolsOf is what the tools of agents need from this process.
func toolsOf(cfg *config, actions []executor.Action, servers tool.Servers, boxes *sandbox.Set, results tool.Results) (tool.Config, error) {
	ask, err := approvalsOf(cfg)
	return tool.Config{Actions: actions, Servers: servers, Sandbox: boxes, Results: results, Query: database.Query, Policy: ask, PrivateHosts: cfg.Security.PrivateHosts}, err
}

// approvalsOf says which tools the configuration wants people to approve.
func approvalsOf(cfg *config) (func(name string) *pipeline.Gate, error) {
	patterns := cfg.Security.ApproveTools
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, &failure{
				code: exitInvalid, what: "cannot use security.approve_tools", why: p + " is not a pattern",
				fix: []string{"name tools, as in terminal or mcp__*"},
			}
		}
	}
	return func(name string) *pipeline.Gate {
		if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			return &pipeline.Gate{Always: true}
		}
		return nil
	}, nil
}

func (c *cli) toolsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tools",
		Short: "See the tools that agents can be given, and try them out",
		Long:  `Shows the tools that an agent's list may name without describing them: the server's own, and every action of the catalogue. MCP servers of the installation stand among them by name alone; servers asks them, and those of a pipeline, for their tools. Tools that a pipeline describes itself are not among them.`,
		Example: `
orchestrator tools list
orchestrator tools get terminal
orchestrator tools call filesystem_search -p pattern=TODO`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.toolsListCommand(), c.toolsGetCommand(), c.toolsCallCommand(), c.toolsServersCommand(), c.toolsLoginCommand(), c.toolsLogoutCommand(), c.toolsImportCommand())
	return cmd
}

func (c *cli) toolsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tools with their effects",
		Example: "\norchestrator tools list --json",
		Args:    args(0, 0, "no arguments", "orchestrator tools list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.tools.ListTools(ctx, &api.ListToolsRequest{})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				rows := [][]string{{dim("TOOL"), dim("EFFECT"), dim("WHAT IT DOES")}}
				for _, t := range resp.GetTools() {
					first, _, _ := strings.Cut(t.GetDescription(), "\n")
					first, _, _ = strings.Cut(first, ". ")
					rows = append(rows, []string{t.GetName(), effectText(t), harmlessLine(strings.TrimSuffix(first, "."))})
				}
				table(w, rows)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func effectText(t *api.Tool) string {
	switch {
	case t.GetHuman():
		return "asks people"
	case t.GetEffect() == "":
		if t.GetSet() == "mcp" {
			return "by tool"
		}
		return "by arguments"
	}
	return t.GetEffect()
}

func (c *cli) toolsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get TOOL",
		Short:   "Show what a tool takes",
		Example: "\norchestrator tools get filesystem_edit",
		Args:    args(1, 1, "the name of a tool", "orchestrator tools get terminal"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				t, err := cl.tools.GetTool(ctx, &api.GetToolRequest{Name: words[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(t)
				}
				return c.printTool(t)
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printTool(t *api.Tool) error {
	w := c.painted(c.out)
	fmt.Fprintf(w, "%s  %s\n\n%s\n", t.GetName(), dim(effectText(t)), harmless(t.GetDescription()))
	v, err := pipeline.DecodeValue([]byte(t.GetSchema()))
	if err != nil {
		return err
	}
	schema, _ := v.(map[string]any)
	props, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	rows := [][]string{}
	for _, name := range sortedKeys(props) {
		p, _ := props[name].(map[string]any)
		kind := "any"
		switch k := p["type"].(type) {
		case string:
			kind = k
		case []any:
			kind = strings.Trim(fmt.Sprint(k), "[]")
		default:
			if p["enum"] != nil {
				kind = string(pipeline.EncodeValue(p["enum"]))
			}
		}
		note := ""
		switch {
		case slices.Contains(required, any(name)):
			note = "required"
		case p["default"] != nil:
			note = "default " + string(pipeline.EncodeValue(p["default"]))
		}
		doc, _ := p["description"].(string)
		rows = append(rows, []string{"  " + name, kind, note, harmlessLine(doc)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, rows)
	}
	return nil
}

// toolCall is what tools call is given.
type toolCall struct {
	params    []string
	arguments string
	workspace string
}

func (c *cli) toolsCallCommand() *cobra.Command {
	f := &toolCall{}
	cmd := &cobra.Command{
		Use:   "call TOOL",
		Short: "Call a tool here, as an agent would",
		Long: `Calls a tool in this process, with a folder of this machine as its workspace, and prints what a model would read. Arguments are held against the tool's schema; a value that is JSON counts as such unless the schema wants a text. Nobody is asked for approval: the call is yours.

A tool that reports failure ends with exit code 1.`,
		Example: `
orchestrator tools call filesystem_search -p pattern=TODO -p name='*.go'
orchestrator tools call terminal -p command='go test ./...' --workspace .
orchestrator tools call http --arguments '{"url": "https://example.org"}'`,
		Args: args(1, 1, "the name of a tool", "orchestrator tools call terminal -p command=pwd"),
		RunE: func(cmd *cobra.Command, words []string) error { return c.callTool(cmd.Context(), words[0], f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.params, "param", "p", nil, "an argument as name=value (repeatable)")
	fl.StringVar(&f.arguments, "arguments", "", "all arguments as a JSON object; -p adds to them")
	fl.StringVar(&f.workspace, "workspace", ".", "the folder that the tool works in")
	return cmd
}

func (c *cli) callTool(ctx context.Context, name string, f *toolCall) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	boxes, err := sandboxes(cfg, logger(c.err, cfg, cfg.Monitoring.StructuredLogging), c.home(), cfg.Storage.Path)
	if err != nil {
		return err
	}
	own, err := toolsOf(cfg, step.All(step.Config{Sandbox: boxes}), nil, boxes, nil)
	if err != nil {
		return err
	}
	t := tool.Find(own, name)
	if t == nil {
		var names []string
		for _, s := range tool.Tools(own) {
			names = append(names, s.Name)
		}
		hint := ""
		if n := expr.Suggest(name, names); n != "" {
			hint = " (did you mean " + n + "?)"
		}
		return usage("orchestrator tools list", "there is no tool %q%s", name, hint)
	}
	if t.Human {
		return usage("orchestrator tools list", "%s asks people on behalf of an agent; there is nothing to call", name)
	}
	text, err := f.text(t)
	if err != nil {
		return err
	}
	given, wrong := tool.Check(t, text)
	if wrong != nil {
		return usage("orchestrator tools get "+name, "the arguments of %s are wrong: %s", name, strings.Join(wrong, "; "))
	}
	dir, err := workspaceDir(f.workspace)
	if err != nil {
		return err
	}
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	r, err := t.Run(ctx, executor.Env{Path: pipeline.Path("call"), Attempt: 1, Workspace: filepath.Clean(dir), Environ: executor.Harmless(c.environ)}, tool.Call{
		N: 1, ID: "call", Arguments: given,
	})
	if err != nil {
		return errInterrupted
	}
	for i := range r.Content {
		b := &r.Content[i]
		if m := b.Media; m != nil {
			fmt.Fprintf(c.out, "[%s %s, %d bytes]\n", b.Kind, m.Type, len(m.Data))
			continue
		}
		fmt.Fprintln(c.out, harmless(strings.TrimSuffix(b.Text, "\n")))
	}
	if r.Failed {
		return &failure{code: exitFailed, what: "the tool " + name + " reports failure"}
	}
	return nil
}

// text is the arguments as a model would write them.
func (f *toolCall) text(t *tool.Tool) (string, error) {
	given := map[string]any{}
	if f.arguments != "" {
		v, err := pipeline.DecodeValue([]byte(f.arguments))
		m, ok := v.(map[string]any)
		if err != nil || !ok {
			return "", usage(`--arguments '{"command": "pwd"}'`, "--arguments is not a JSON object")
		}
		given = m
	}
	props, _ := t.Schema["properties"].(map[string]any)
	for _, p := range f.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return "", usage("-p command=pwd", "%q is not name=value", p)
		}
		schema, _ := props[name].(map[string]any)
		given[name] = value
		if schema["type"] != "string" {
			if v, err := pipeline.DecodeValue([]byte(value)); err == nil {
				given[name] = v
			}
		}
	}
	return string(pipeline.EncodeValue(given)), nil
}
