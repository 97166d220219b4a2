package spec

import "github.com/orchestrator-project/orchestrator/pipeline"

func (e *encoder) sandbox(x *pipeline.Sandbox) {
	if x == nil {
		return
	}
	e.key("sandbox")
	e.object(func() {
		e.text("driver", x.Driver)
		e.bool("network", x.Network)
		e.int("memory", x.Memory)
		e.float("cpu", x.CPU)
		e.int("pids", int64(x.Pids))
		e.int("timeout", int64(x.Timeout))
	})
}

func (e *encoder) skill(x *pipeline.Skill) {
	e.object(func() {
		e.must("name", x.Name)
		e.text("description", x.Description)
		e.must("dir", x.Dir)
		e.properties("parameters", x.Parameters)
		e.bool("open", x.Open)
		if x.Returns != nil {
			e.key("returns")
			e.kind(x.Returns)
		}
		e.texts("command", x.Command)
		e.text("run", x.Run)
		e.sandbox(x.Sandbox)
		e.text("prompt", x.Prompt)
	})
}

func (e *encoder) agent(x *pipeline.Agent) {
	e.object(func() {
		e.must("name", x.Name)
		e.text("description", x.Description)
		listOf(e, "command", x.Command, e.field)
		e.text("input", x.Input)
		e.ptr("instructions", x.Instructions)
		e.ptr("model", x.Model)
		e.needs(x.Needs)
		listOf(e, "tools", x.Tools, e.tool)
		e.texts("mcp", x.MCP)
		listOf(e, "skills", x.Skills, e.skill)
		if o := x.Output; o != nil {
			e.key("output")
			e.object(func() {
				e.key("schema")
				e.b = pipeline.AppendValue(e.b, o.Schema)
				e.int("retries", int64(o.Retries))
				e.text("mode", o.Mode)
			})
		}
		if l := x.Limits; l != (pipeline.AgentLimits{}) {
			e.key("limits")
			e.object(func() {
				e.int("steps", int64(l.Steps))
				e.int("tokens", l.Tokens)
				e.float("usd", l.USD)
				e.int("wall", int64(l.Wall))
				e.int("parallel", int64(l.Parallel))
				e.int("repeat_calls", int64(l.RepeatCalls))
				e.int("depth", int64(l.Depth))
			})
		}
		listOf(e, "agents", x.Agents, e.agent)
		e.pos(x.Pos)
	})
}

func (e *encoder) tool(x *pipeline.Tool) {
	e.object(func() {
		e.must("name", x.Name)
		e.text("description", x.Description)
		if x.Parameters != nil {
			e.key("parameters")
			e.kind(x.Parameters)
		}
		if g := x.Gate; g != nil {
			e.key("gate")
			e.object(func() {
				e.bool("always", g.Always)
				e.template("when", g.When)
				e.texts("assignees", g.Assignees)
				e.int("deadline", int64(g.Deadline))
			})
		}
		e.text("effect", string(x.Effect))
		e.int("timeout", int64(x.Timeout))
		e.sandbox(x.Sandbox)
		e.entries("env", x.Env)
		e.texts("secrets", x.Secrets)
		e.text("action", x.Action)
		e.text("server", x.Server)
		if h := x.HTTP; h != nil {
			e.key("http")
			e.object(func() {
				e.text("method", h.Method)
				e.ptr("url", &h.URL)
				e.entries("headers", h.Headers)
				e.ptr("body", h.Body)
			})
		}
		listOf(e, "command", x.Command, e.field)
		if q := x.SQL; q != nil {
			e.key("sql")
			e.object(func() {
				e.must("dsn", q.DSN)
				if q.Query != nil {
					e.must("query", *q.Query)
				}
				e.texts("args", q.Args)
				e.int("max_rows", int64(q.MaxRow))
			})
		}
		e.call("pipeline", x.Pipeline)
		e.text("agent", x.Agent)
		e.pos(x.Pos)
	})
}

func (e *encoder) call(k string, x *pipeline.Call) {
	if x == nil {
		return
	}
	e.key(k)
	e.object(func() {
		e.must("name", x.Name)
		e.number("unit", int64(x.Unit))
		e.entries("with", x.With)
		e.bool("detach", x.Detach)
	})
}

func (e *encoder) needs(x *pipeline.Needs) {
	if x == nil {
		return
	}
	e.key("needs")
	e.object(func() {
		e.texts("tasks", x.Tasks)
		e.int("min_context", x.MinContext)
		e.text("expertise", x.Expertise)
		e.float("cost_limit", x.CostLimit)
		e.text("min_size", x.MinSize)
		e.text("max_size", x.MaxSize)
		e.bool("tools", x.Tools)
		e.bool("structured", x.Structured)
		e.bool("streaming", x.Streaming)
		e.texts("languages", x.Languages)
		e.text("policy", x.Policy)
	})
}

func (e *encoder) model(x *pipeline.ModelAlias) {
	e.object(func() {
		e.must("name", x.Name)
		e.text("provider", x.Provider)
		e.text("model", x.Model)
		e.text("base_url", x.BaseURL)
		e.text("api", x.API)
		e.text("file", x.File)
		e.text("key", x.Key)
		e.texts("fallback", x.Fallback)
		e.bound("temperature", x.Temperature)
		e.int("max_tokens", x.MaxTokens)
		e.pos(x.Pos)
	})
}

func (e *encoder) server(x *pipeline.MCPServer) {
	e.object(func() {
		e.must("name", x.Name)
		listOf(e, "command", x.Command, e.field)
		e.entries("env", x.Env)
		e.texts("secrets", x.Secrets)
		e.ptr("url", x.URL)
		e.text("transport", x.Transport)
		e.entries("headers", x.Headers)
		e.sandbox(x.Sandbox)
		e.texts("allow", x.Allow)
		e.texts("deny", x.Deny)
		e.pos(x.Pos)
	})
}
