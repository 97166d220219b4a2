package pipeline_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The plans of tests are built of these.

func act(id string, on ...int) *pipeline.StepDef { return kind(pipeline.KindAction, id, on...) }

func kind(k pipeline.Kind, id string, on ...int) *pipeline.StepDef {
	s := &pipeline.StepDef{ID: id, Kind: k}
	for _, i := range on {
		s.Deps = append(s.Deps, pipeline.Dep{On: i, Cause: "declared"})
	}
	return s
}

// with changes a step and returns it.
func with(s *pipeline.StepDef, change func(s *pipeline.StepDef)) *pipeline.StepDef {
	change(s)
	return s
}

func onFailure(s *pipeline.StepDef, what string) *pipeline.StepDef {
	s.OnFailure = what
	return s
}

func graph(steps ...*pipeline.StepDef) pipeline.Body {
	return pipeline.Body{Order: "graph", Steps: steps}
}

func sequence(steps ...*pipeline.StepDef) pipeline.Body {
	for i := 1; i < len(steps); i++ {
		dependsOn(steps[i], i-1)
	}
	return pipeline.Body{Order: "sequence", Steps: steps}
}

func loop(k pipeline.Kind, id string, body pipeline.Body, l pipeline.Loop) *pipeline.StepDef {
	l.Body = body
	return &pipeline.StepDef{ID: id, Kind: k, Loop: &l}
}

func branches(k pipeline.Kind, id string, bodies ...pipeline.Body) *pipeline.StepDef {
	s := &pipeline.StepDef{ID: id, Kind: k}
	for _, b := range bodies {
		s.Branches = append(s.Branches, pipeline.Branch{Body: b})
	}
	return s
}

func call(id string, unit int) *pipeline.StepDef {
	return &pipeline.StepDef{ID: id, Kind: pipeline.KindCall, Call: &pipeline.Call{Unit: unit}}
}

func planOf(root pipeline.Body, units ...*pipeline.Unit) *pipeline.Plan {
	return &pipeline.Plan{Unit: pipeline.Unit{ID: "main", Root: root}, Units: units}
}

// script answers a driver's questions: "what path", as in "fails a/b", is mapped
// to the answer; all else goes well.
type script map[string]int

func (s script) choose(what string, path pipeline.Path, n int) int {
	v := s[strings.TrimSpace(what+" "+string(path))]
	return min(v, n-1)
}

// The answers that mean trouble.
const (
	fails = 4 // of fails
	isOff = 7 // of condition
	holds = 2 // of until
	over  = 2 // of pass
)

func started(t *testing.T, plan *pipeline.Plan, s script) *driver {
	t.Helper()
	d := newDriver(t, plan, s.choose)
	d.pump()
	return d
}

// ran runs a plan to its end, checking on the way that the log tells it all.
func ran(t *testing.T, plan *pipeline.Plan, s script) *driver {
	t.Helper()
	d := newDriver(t, plan, s.choose)
	d.after = func(d *driver) {
		d.checkTwins()
		d.checkView()
	}
	d.finishRun()
	return d
}

// story is how the steps ended, in the order of their ends, a line each.
func (d *driver) story() string {
	var b strings.Builder
	for _, e := range d.events {
		if e.Type == pipeline.StepFinished || e.Type == pipeline.StepWasSkipped || e.Type == pipeline.RunFinished {
			status := string(e.Data.Status)
			switch e.Type {
			case pipeline.StepWasSkipped:
				status = string(pipeline.StepSkipped)
			case pipeline.RunFinished:
				status = "run " + string(e.Data.RunStatus)
			}
			b.WriteString(strings.TrimSpace(strings.TrimSpace(string(e.Path)+" "+status)+" "+e.Data.Reason) + "\n")
		}
	}
	return b.String()
}

// tells compares the story; blanks around its lines do not count.
func (d *driver) tells(t *testing.T, want string) {
	t.Helper()
	lines := func(s string) []string {
		list := strings.Split(strings.TrimSpace(s), "\n")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return list
	}
	if diff := cmp.Diff(lines(want), lines(d.story())); diff != "" {
		t.Errorf("the run went another way (-want +got):\n%s", diff)
	}
}

// output is what the step at path gave.
func (d *driver) output(path pipeline.Path) any { return d.view.Step(path).Output }

func equalValue(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
