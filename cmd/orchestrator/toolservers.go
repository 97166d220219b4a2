package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

func (c *cli) toolsImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import MCP_JSON",
		Short: "Turn an mcp.json into the mcp_servers of a pipeline",
		Long: `Reads a file that names MCP servers in the form that many programs share, {"mcpServers": {NAME: {command, args, env, url, type, headers}}}, and prints what a pipeline says of them. - is standard input.

Values that look like secrets, and what the file takes from the environment, become secrets of the pipeline; no value of theirs is printed. What differs is said on standard error.`,
		Example: `
orchestrator tools import mcp.json
orchestrator tools import ~/.config/mcp.json >> pipeline.yaml`,
		Args: args(1, 1, "a file mcp.json", "orchestrator tools import mcp.json"),
		RunE: func(_ *cobra.Command, words []string) error { return c.importServers(words[0]) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	c.jsonFlag(cmd, `print {"yaml": ..., "servers": [...], "secrets": [...], "notes": [...]}`)
	return cmd
}

func (c *cli) importServers(name string) error {
	text, err := c.textOf("mcp.json", name)
	if err != nil {
		return err
	}
	got, err := mcp.Import(text)
	if err != nil {
		return &failure{code: exitInvalid, what: "cannot import " + name, why: err.Error()}
	}
	if c.asJSON {
		return c.printAny(map[string]any{"yaml": got.YAML, "servers": given(got.Servers), "secrets": given(got.Secrets), "notes": given(got.Notes)})
	}
	fmt.Fprint(c.out, harmless(got.YAML))
	for _, n := range got.Notes {
		fmt.Fprintln(c.err, "note:", harmless(n))
	}
	return nil
}

// given is a list that is never null.
func given(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// printAny prints a value that is no message of the API.
func (c *cli) printAny(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// serversCall is what tools servers is given.
type serversCall struct {
	inputs    []string
	workspace string
}

func (c *cli) toolsServersCommand() *cobra.Command {
	f := &serversCall{}
	cmd := &cobra.Command{
		Use:   "servers [FILE [SERVER]]",
		Short: "Connect to MCP servers and list their tools",
		Long: `Starts the MCP servers of a pipeline, or connects to them, in this process, as a run would, lists the tools that the pipeline allows, and ends them. Templates read the inputs that are given and the defaults of the others; secrets are found as orchestrator run finds them. Without a pipeline, they are the servers of this installation, which its mcp.json names and every pipeline may use.

A tool that a server lists but that cannot be used, as its schema is none, is named with the reason on standard error.`,
		Example: `
orchestrator tools servers
orchestrator tools servers pipeline.yaml
orchestrator tools servers pipeline.yaml fs --json
orchestrator tools servers pipeline.yaml -i folder=/data`,
		Args: args(0, 2, "a pipeline, and perhaps one of its servers", "orchestrator tools servers pipeline.yaml"),
		RunE: func(cmd *cobra.Command, words []string) error { return c.listServers(cmd.Context(), words, f) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	cmd.Flags().StringArrayVarP(&f.inputs, "input", "i", nil, "an input as name=value (repeatable)")
	cmd.Flags().StringVar(&f.workspace, "workspace", ".", "the folder that the servers work in")
	c.jsonFlag(cmd, `print {"tools": [{"name", "server", "description", "effect", "schema"}]}`)
	return cmd
}

func (c *cli) listServers(ctx context.Context, words []string, f *serversCall) error {
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	cl, err := c.embed(ctx, plan{bare: true})
	if err != nil {
		return err
	}
	defer cl.close()
	list, none, err := c.wantedServers(ctx, cl, words, f.inputs)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if c.asJSON {
			return c.printAny(map[string]any{"tools": []any{}})
		}
		fmt.Fprintln(c.out, none)
		return nil
	}
	dir, err := workspaceDir(f.workspace)
	if err != nil {
		return err
	}
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	log := logger(c.log, cfg, false)
	boxes, err := sandboxes(cfg, log, c.home(), cfg.Storage.Path)
	if err != nil {
		return err
	}
	pool := mcp.NewPool(mcp.Config{Sandbox: boxes, Logins: loginsOf(c.home()), Environ: executor.Harmless(c.environ), Version: version, Logger: log})
	defer pool.Close()
	set, err := pool.Connect(ctx, executor.Env{Path: "servers", Attempt: 1, Workspace: filepath.Clean(dir), Log: func(_, text string) {
		if strings.Contains(text, "left out") {
			fmt.Fprint(c.err, harmless(text))
		}
	}}, "", list)
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return &failure{code: exitFailed, what: err.Error()}
	}
	defer set.Close()
	return c.printServerTools(set.Tools())
}

// wantedServers are those of a pipeline, or without one of the installation; none
// says so where there are none.
func (c *cli) wantedServers(ctx context.Context, cl *client, words, inputs []string) (list []mcp.Server, none string, err error) {
	own, err := installed(c.home(), c.secret, c.env)
	if err != nil {
		return nil, "", err
	}
	if len(words) == 0 {
		for i := range own {
			if l := own[i].Lacking(); len(l) > 0 {
				fmt.Fprintf(c.err, "note: %s is left out: it needs %s in the environment\n", own[i].Name, strings.Join(l, ", "))
				continue
			}
			list = append(list, own[i])
		}
		return list, "no MCP server can be used by all pipelines; " + filepath.Join(c.home(), installedFile) + " names them", nil
	}
	src, err := c.readSource(words[0])
	if err != nil {
		return nil, "", err
	}
	if _, err := c.describe(ctx, cl, src); err != nil {
		return nil, "", err
	}
	compiled, _, err := spec.Compile(spec.Source{File: src.file, Text: []byte(src.text), Files: src.files}, cl.house.engine.Catalog())
	if err != nil {
		return nil, "", err
	}
	values, err := c.inputs(ctx, cl, src, &runFlags{inputs: inputs})
	if err != nil {
		return nil, "", err
	}
	list, err = c.resolveServers(compiled, words[1:], values)
	return list, words[0] + " has no mcp_servers", err
}

// resolveServers evaluates the servers of a pipeline, or one of them.
func (c *cli) resolveServers(p *pipeline.Plan, only []string, values map[string]any) ([]mcp.Server, error) {
	inputs := map[string]any{}
	for i := range p.Inputs {
		in := &p.Inputs[i]
		if inputs[in.Name] = in.Default; values[in.Name] != nil {
			inputs[in.Name] = values[in.Name]
		}
	}
	text := func(f *pipeline.Field, more map[string]any) (any, error) {
		if f.Template == nil {
			return f.Const, nil
		}
		t, err := expr.Compile(f.Template.Src)
		if err != nil {
			return nil, err
		}
		scope := expr.MapScope{"inputs": inputs}
		maps.Copy(scope, more)
		return t.Eval(&expr.Env{Scope: scope})
	}
	var list []mcp.Server
	for i := range p.MCPServers {
		s := &p.MCPServers[i]
		if len(only) > 0 && s.Name != only[0] {
			continue
		}
		r, err := mcp.Resolve(s, text, c.secret)
		if err != nil {
			return nil, &failure{code: exitInvalid, what: "cannot tell what the MCP server " + s.Name + " is", why: err.Error(), fix: []string{"give inputs with -i name=value"}}
		}
		list = append(list, r)
	}
	if len(only) > 0 && len(list) == 0 {
		return nil, usage("orchestrator tools servers FILE", "the pipeline has no MCP server %q", only[0])
	}
	return list, nil
}

func (c *cli) printServerTools(tools []tool.ServerTool) error {
	if c.asJSON {
		list := []any{}
		for i := range tools {
			t := &tools[i]
			list = append(list, map[string]any{"name": t.Name, "server": t.Server, "description": t.Description, "effect": t.Effect, "schema": t.Schema})
		}
		return c.printAny(map[string]any{"tools": list})
	}
	if len(tools) == 0 {
		fmt.Fprintln(c.out, "the servers have no tools that the pipeline allows")
		return nil
	}
	w := c.painted(c.out)
	rows := [][]string{{dim("TOOL"), dim("EFFECT"), dim("WHAT IT DOES")}}
	for i := range tools {
		t := &tools[i]
		first, _, _ := strings.Cut(strings.TrimSpace(t.Description), "\n")
		first, _, _ = strings.Cut(first, ". ")
		rows = append(rows, []string{t.Name, string(t.Effect), harmlessLine(strings.TrimSuffix(first, "."))})
	}
	table(w, rows)
	return nil
}

// textOf is the text of a file, or of standard input for "-".
func (c *cli) textOf(what, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.in)
	}
	return readFile(what, name)
}
