package graph

import "github.com/orchestrator-project/orchestrator/pipeline"

// Layout places the steps of a plan.
func Layout(p *pipeline.Plan) Graph { return Graph{} }

// Mermaid is the graph as a Mermaid flowchart.
func (g Graph) Mermaid() string { return "" }
