package pipeline

// ToolSpec describes a tool that agents may be given without describing it.
type ToolSpec struct {
	Name        string
	Set         string         // that brings it together with others, as filesystem; empty: none
	Description string         // what a model is told about it
	Schema      map[string]any // JSON Schema (2020-12) of its arguments: an object
	Effect      Effect         // empty: depends on the arguments
	Human       bool           // a call is a question to people
}
