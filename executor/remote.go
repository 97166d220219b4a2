package executor

import "github.com/orchestrator-project/orchestrator/pipeline"

// remote reports whether a step calls a tool of an MCP server.
func remote(def *pipeline.StepDef) bool {
	_, _, ok := pipeline.MCPTool(def.Action)
	return ok && def.Kind == pipeline.KindAction
}

// composeRemote finds the action behind a tool of an MCP server, which evaluates
// what its server needs once it runs.
func (r *runState) composeRemote(t *pipeline.Task, w *work) (*Action, *pipeline.Failure) {
	var a *Action
	if r.lane.ex.cfg.Remote != nil {
		a = r.lane.ex.cfg.Remote(t.Def.Action, t.Def.Effect)
	}
	if a == nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "this server cannot call tools of MCP servers, as %s is one", t.Def.Action)
	}
	path := t.Path
	w.agent = &AgentEnv{
		Unit: r.m.Unit(path), Secret: r.lane.ex.cfg.Secret,
		Text: func(f *pipeline.Field, more map[string]any) (any, error) {
			v, fail, err := onLane(r, path, func(ev evaluation) (any, *pipeline.Failure) { return ev.and(more).field(f, "the MCP server") })
			return v, either(fail, err)
		},
	}
	return a, nil
}
