package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Needs is what a model must be able to do: requires_model.
type Needs struct {
	Tasks      []string `json:"tasks,omitempty"`
	MinContext int64    `json:"min_context,omitempty"` // tokens
	Expertise  string   `json:"expertise,omitempty"`   // low, medium, high, very-high
	CostLimit  float64  `json:"cost_limit,omitempty"`  // USD for 1,000 tokens
	MinSize    string   `json:"min_size,omitempty"`    // as in 7B
	MaxSize    string   `json:"max_size,omitempty"`
	Tools      bool     `json:"tools,omitempty"`
	Structured bool     `json:"structured,omitempty"`
	Streaming  bool     `json:"streaming,omitempty"`
	Languages  []string `json:"languages,omitempty"`
	Policy     string   `json:"policy,omitempty"` // a selection policy of the registry
}

// ModelSpec is what the compiler and its readers know of a model of the registry.
// What is zero is not known.
type ModelSpec struct {
	Name       string
	Tasks      []string
	Context    int64   // tokens
	Expertise  string  // as in Needs
	Size       float64 // parameters, in billions
	Cost       float64 // USD for 1,000 tokens; 0: it costs nothing
	Tools      bool    // it calls tools
	Structured bool    // its answers can be held to a schema
	Streaming  bool
	Languages  []string
}

// Expertises are the grades of a model, the lowest first.
var Expertises = []string{"low", "medium", "high", "very-high"}

// Lacks says why a model does not do; empty: it does. Tasks, languages, context,
// tools, structured and streaming must be stated; a grade or size that is not
// known is no obstacle.
func (n *Needs) Lacks(m *ModelSpec) string {
	if n == nil {
		return ""
	}
	for _, t := range n.Tasks {
		if !slices.Contains(m.Tasks, t) {
			return "it is not for the task " + t
		}
	}
	for _, l := range n.Languages {
		if !slices.Contains(m.Languages, l) {
			return "it does not know the language " + l
		}
	}
	least, most := ModelSize(n.MinSize), ModelSize(n.MaxSize)
	switch {
	case m.Context < n.MinContext:
		return fmt.Sprintf("its context holds %d tokens, not %d", m.Context, n.MinContext)
	case m.Expertise != "" && slices.Index(Expertises, m.Expertise) < slices.Index(Expertises, n.Expertise):
		return fmt.Sprintf("its expertise is %s, not %s", m.Expertise, n.Expertise)
	case n.CostLimit > 0 && m.Cost > n.CostLimit:
		return fmt.Sprintf("1,000 tokens cost %g USD, more than %g", m.Cost, n.CostLimit)
	case m.Size > 0 && m.Size < least:
		return fmt.Sprintf("it has %gB parameters, fewer than %s", m.Size, n.MinSize)
	case m.Size > 0 && most > 0 && m.Size > most:
		return fmt.Sprintf("it has %gB parameters, more than %s", m.Size, n.MaxSize)
	case n.Tools && !m.Tools:
		return "it does not call tools"
	case n.Structured && !m.Structured:
		return "its answers cannot be held to a schema"
	case n.Streaming && !m.Streaming:
		return "it does not stream"
	}
	return ""
}

// ModelSize reads a size such as 7B or 350M in billions of parameters; 0: it is
// none.
func ModelSize(s string) float64 {
	s = strings.ToUpper(strings.TrimSpace(s))
	times, by := 1.0, 1.0
	switch {
	case strings.HasSuffix(s, "T"):
		times = 1000
	case strings.HasSuffix(s, "M"):
		by = 1000
	case !strings.HasSuffix(s, "B"):
		return 0
	}
	f, err := strconv.ParseFloat(s[:len(s)-1], 64)
	if err != nil || f <= 0 || f > 1e6 {
		return 0
	}
	return f * times / by
}
