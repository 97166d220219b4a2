package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// installedFile is the file of a home that names MCP servers for all pipelines.
const installedFile = "mcp.json"

// installed reads the MCP servers that every pipeline may name; a home need have
// none. What the file takes from the environment is found as a secret of that
// name, or as the variable itself.
func installed(home string, secret, env func(string) (string, bool)) ([]mcp.Server, error) {
	file := filepath.Join(home, installedFile)
	text, err := os.ReadFile(file) //nolint:gosec // the operator's own
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &failure{code: exitInvalid, what: "cannot read " + file, why: cause(err)}
	}
	if secret == nil {
		secret = executor.EnvSecret
	}
	list, faults := mcp.ReadInstalled(file, text, func(name string) (string, bool) {
		if v, ok := secret(name); ok {
			return v, true
		}
		if env == nil {
			return "", false
		}
		return env(name)
	})
	if len(faults) > 0 {
		return nil, &failure{
			code: exitInvalid, what: "the MCP servers of this installation are not valid", why: strings.Join(faults, "\n"),
			fix: []string{"correct " + file + "; docs/guide/tools.md describes it"},
		}
	}
	return list, nil
}

// offered tells those who list tools of the servers that pipelines may name. None is
// asked what it has: that would start programs, or wait for others.
func offered(servers []mcp.Server) []pipeline.ToolSpec {
	var list []pipeline.ToolSpec
	for i := range servers {
		s := &servers[i]
		text := fmt.Sprintf("All tools of the MCP server %s of this installation, which an agent is given by mcp: [%s], and one of them by %sTOOL. What they are, orchestrator tools servers asks the server.", s.Name, s.Name, pipeline.MCPName(s.Name, ""))
		if len(s.Allow)+len(s.Deny) > 0 {
			text += " The installation does not allow all of them."
		}
		if l := s.Lacking(); len(l) > 0 {
			text += " It cannot be used as long as " + strings.Join(l, ", ") + " is not set where the server runs."
		}
		list = append(list, pipeline.ToolSpec{Name: pipeline.MCPName(s.Name, "*"), Set: "mcp", Description: text, Schema: map[string]any{"type": "object"}})
	}
	return list
}

// known are servers as the compiler knows them.
func known(servers []mcp.Server) []pipeline.MCPServer {
	var list []pipeline.MCPServer
	for i := range servers {
		s := &servers[i]
		list = append(list, pipeline.MCPServer{Name: s.Name, Allow: s.Allow, Deny: s.Deny})
	}
	return list
}

// hidden are the values of servers that no run may show.
func hidden(servers []mcp.Server) map[string]string {
	all := map[string]string{}
	for i := range servers {
		for _, v := range servers[i].Hidden() {
			all[v] = "of " + servers[i].Name
		}
	}
	return all
}

// checkServers tells doctor's reader which MCP servers pipelines may name, and what
// they lack. None is started.
func (c *cli) checkServers(ok func(name, format string, args ...any), bad func(status, name, fix, format string, args ...any)) {
	list, err := installed(c.home(), c.secret, c.env)
	if f, broken := errors.AsType[*failure](err); broken {
		bad("error", installedFile, strings.Join(f.fix, "; "), "%s\n%s", f.what, f.why)
		return
	}
	var ready, lacking []string
	for i := range list {
		if l := list[i].Lacking(); len(l) > 0 {
			lacking = append(lacking, list[i].Name+" needs "+strings.Join(l, ", "))
		} else {
			ready = append(ready, list[i].Name)
		}
	}
	switch {
	case len(lacking) > 0:
		bad("warning", installedFile, "set them in the environment of the server", "%s", strings.Join(lacking, "; "))
	case len(ready) > 0:
		ok(installedFile, "%s; orchestrator tools servers lists their tools", strings.Join(ready, ", "))
	}
}
