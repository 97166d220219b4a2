package pipeline

import "strings"

// StepValue is a step as templates see it: its output, with the step's own
// names as attributes. Under `steps.` those names come first, else the fields
// of the output do.
type StepValue struct {
	step   *Step
	loop   bool
	strict bool
}

// Value is the output; null for a step that was skipped.
func (v StepValue) Value() any { return v.step.Output }

// Attr finds a name of the step or a field of its output.
func (v StepValue) Attr(name string) (any, bool) {
	if v.strict {
		if a, ok := v.own(name); ok {
			return a, true
		}
		return v.field(name)
	}
	if a, ok := v.field(name); ok {
		return a, true
	}
	return v.own(name)
}

func (v StepValue) field(name string) (any, bool) {
	m, ok := v.step.Output.(map[string]any)
	if !ok {
		return nil, false
	}
	if a, ok := m[name]; ok {
		return a, true
	}
	if v.loop && (name == "last" || name == "final_results") {
		if l, ok := m["results"].([]any); ok && len(l) > 0 {
			return l[len(l)-1], true
		}
		return nil, true
	}
	return nil, false
}

// own is one of the names that every step has.
func (v StepValue) own(name string) (any, bool) {
	s := v.step
	switch name {
	case "status":
		return strings.ToLower(string(s.Status)), true
	case "success":
		return s.Status == StepCompleted, true
	case "error":
		if s.Error == nil {
			return nil, true
		}
		return map[string]any{"kind": s.Error.Kind, "message": s.Error.Message, "step": string(s.Error.Step)}, true
	case "output", "result", "value", "outputs":
		return s.Output, true
	case "parameters":
		return s.Parameters, true
	case "artifacts":
		list := make([]any, len(s.Artifacts))
		for i, v := range s.Artifacts {
			list[i] = map[string]any{"artifact": v.Artifact, "version": int64(v.Version), "value": v.Value}
		}
		return list, true
	case "exit_code":
		if s.Error != nil && s.Error.ExitCode != nil {
			return int64(*s.Error.ExitCode), true
		}
		if s.Kind == KindCommand && s.Status == StepCompleted {
			return int64(0), true
		}
		return nil, true
	case "attempts":
		return int64(s.Attempt), true
	case "started_at":
		if s.StartedAt.IsZero() {
			return nil, true
		}
		return s.StartedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"), true
	case "duration":
		if s.StartedAt.IsZero() || s.FinishedAt.IsZero() {
			return nil, true
		}
		return s.FinishedAt.Sub(s.StartedAt).Seconds(), true
	}
	return nil, false
}

// nullState is a state variable that nothing has set: null, and so is every
// attribute of it.
type nullState struct{}

// Attr is null for every name.
func (n nullState) Attr(string) (any, bool) { return n, true }

// Value is null.
func (nullState) Value() any { return nil }
