package server

import (
	"context"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// tools serves orchestrator.v1.Tools.
type tools struct {
	orchestratorv1.UnimplementedToolsServer
	*Server
}

var _ orchestratorv1.ToolsServer = tools{}

// ListTools lists the tools.
func (s tools) ListTools(context.Context, *orchestratorv1.ListToolsRequest) (*orchestratorv1.ListToolsResponse, error) {
	resp := &orchestratorv1.ListToolsResponse{}
	for i := range s.cfg.Tools {
		resp.Tools = append(resp.Tools, fromTool(&s.cfg.Tools[i]))
	}
	return resp, nil
}

// GetTool reads one tool.
func (s tools) GetTool(_ context.Context, req *orchestratorv1.GetToolRequest) (*orchestratorv1.Tool, error) {
	for i := range s.cfg.Tools {
		if s.cfg.Tools[i].Name == req.GetName() {
			return fromTool(&s.cfg.Tools[i]), nil
		}
	}
	return nil, fault(pipeline.NotFound, "tool_not_found", "there is no tool %s; orchestrator tools list shows those that there are", short(req.GetName()))
}

func fromTool(t *pipeline.ToolSpec) *orchestratorv1.Tool {
	return &orchestratorv1.Tool{
		Name: t.Name, Set: t.Set, Description: t.Description, Schema: fromObject(t.Schema), Effect: string(t.Effect), Human: t.Human,
	}
}
