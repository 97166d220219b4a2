package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	diffDefault = 200      // steps that a comparison lists if nothing is said
	diffMost    = 2000     // and at most
	diffChanges = 500      // of definitions
	diffValue   = 64 << 10 // bytes of a value that is told whole
	diffSteps   = 500_000  // of one run, that are compared: each costs about 200 bytes
)

// DiffRuns compares two runs. Of the first one it keeps a fingerprint of each
// step; values are read again for those that are listed.
func (s runs) DiffRuns(ctx context.Context, req *orchestratorv1.DiffRunsRequest) (*orchestratorv1.RunDiff, error) {
	limit := int(cmp.Or(req.GetLimit(), diffDefault))
	if limit < 1 || limit > diffMost {
		return nil, refuse("limit", "invalid_limit", "must be 1 to %d", diffMost)
	}
	var sides [2]*pipeline.Run
	for i, text := range []string{req.GetA(), req.GetB()} {
		if text == "" {
			return nil, refuse([]string{"a", "b"}[i], "required", "name the two runs to compare")
		}
		id, err := runID(text)
		if err != nil {
			return nil, err
		}
		if sides[i], err = s.cfg.Store.Run(ctx, id); err != nil {
			return nil, err
		}
	}
	a, b := sides[0], sides[1]
	out := &orchestratorv1.RunDiff{
		Inputs: fromValueDiffs(a.Inputs, b.Inputs), Outputs: fromValueDiffs(a.Outputs, b.Outputs),
		DurationA: millis(a.StartedAt, a.FinishedAt), DurationB: millis(b.StartedAt, b.FinishedAt),
	}
	var err error
	if out.Definition, err = s.diffDefinitions(ctx, a.PlanDigest, b.PlanDigest); err != nil {
		return nil, err
	}
	if err := s.diffSteps(ctx, a.ID, b.ID, limit, out); err != nil {
		return nil, err
	}
	out.A, out.B = fromRun(a), fromRun(b)
	for _, r := range []*orchestratorv1.Run{out.A, out.B} {
		r.Inputs, r.Outputs = "", ""
	}
	out.Same = a.Status == b.Status && out.GetDefinition().GetSame() && len(out.GetInputs())+len(out.GetOutputs()) == 0 && out.GetFirst() == nil
	return out, nil
}

// millis is the time from one moment to another; 0 where one is missing.
func millis(from, to time.Time) float64 {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return float64(to.Sub(from).Microseconds()) / 1000
}

// fromValueDiffs are the values of two maps that differ, by name.
func fromValueDiffs(a, b map[string]any) []*orchestratorv1.ValueDiff {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var list []*orchestratorv1.ValueDiff
	for _, name := range names {
		x, inA := a[name]
		y, inB := b[name]
		if inA == inB && markOf(x) == markOf(y) {
			continue
		}
		d := &orchestratorv1.ValueDiff{Name: name}
		if inA {
			d.A = fromDiffValue(x)
		}
		if inB {
			d.B = fromDiffValue(y)
		}
		list = append(list, d)
	}
	return list
}

func fromDiffValue(v any) *orchestratorv1.DiffValue {
	text := pipeline.EncodeValue(v)
	out := &orchestratorv1.DiffValue{Size: clamp(len(text)), Digest: string(store.BlobDigest(sha256.Sum256(text)))}
	if len(text) <= diffValue {
		out.Value = string(text)
	}
	return out
}

// mark tells values apart: the beginning of the hash of their JSON, whose keys are
// sorted. Zero: there is none.
type mark [16]byte

func markOf(v any) mark {
	if v == nil {
		return mark{}
	}
	sum := sha256.Sum256(pipeline.EncodeValue(v))
	return mark(sum[:16])
}

// diffDefinitions compares two plans, by their sources.
func (s runs) diffDefinitions(ctx context.Context, a, b pipeline.Digest) (*orchestratorv1.DefinitionDiff, error) {
	out := &orchestratorv1.DefinitionDiff{Same: a == b}
	if out.GetSame() {
		return out, nil
	}
	var plans [2]*store.Plan
	var files [2]pipeline.Bundle
	for i, d := range []pipeline.Digest{a, b} {
		var err error
		if plans[i], err = s.cfg.Store.Plan(ctx, d); err != nil {
			return nil, err
		}
		var compiled struct {
			Bundle pipeline.Digest `json:"bundle"`
		}
		if err := json.Unmarshal(plans[i].Compiled, &compiled); err == nil && compiled.Bundle != "" {
			if files[i], err = s.cfg.Store.Bundle(ctx, compiled.Bundle); err != nil {
				return nil, err
			}
		}
	}
	changes := spec.Compare(plans[0].Source, plans[1].Source)
	if len(changes) > diffChanges {
		out.More = clamp(len(changes) - diffChanges)
		changes = changes[:diffChanges]
	}
	for i := range changes {
		c := &changes[i]
		out.Changes = append(out.Changes, &orchestratorv1.DefinitionChange{
			Change: c.Kind, Step: c.Step, Key: c.Key, LineA: clamp(c.LineA), LineB: clamp(c.LineB), TextA: c.TextA, TextB: c.TextB,
		})
	}
	for name, data := range files[0] {
		if other, both := files[1][name]; !both || string(other) != string(data) {
			out.Files = append(out.Files, name)
		}
	}
	for name := range files[1] {
		if _, both := files[0][name]; !both {
			out.Files = append(out.Files, name)
		}
	}
	slices.Sort(out.GetFiles())
	return out, nil
}

// stepMark is what is kept of a step of the first run.
type stepMark struct {
	at                         int // how many steps began before it
	status                     pipeline.StepStatus
	parameters, output, failed mark
	attempt                    int32
	cached                     bool
	reused                     bool
	seen                       bool // the second run has it, too
}

func markStep(at int, s *pipeline.Step) stepMark {
	m := stepMark{
		at: at, status: s.Status, parameters: markOf(s.Parameters), output: markOf(s.Output),
		attempt: s.Attempt, cached: s.CacheHit, reused: s.ReusedFrom != "",
	}
	if s.Error != nil {
		m.failed = markOf(map[string]any{"kind": s.Error.Kind, "step": string(s.Error.Step), "message": s.Error.Message})
	}
	return m
}

// fields are the names of what differs.
func (m *stepMark) fields(o *stepMark) []string {
	var list []string
	for _, f := range []struct {
		name    string
		differs bool
	}{
		{"status", m.status != o.status},
		{"parameters", m.parameters != o.parameters},
		{"output", m.output != o.output},
		{"error", m.failed != o.failed},
		{"attempt", m.attempt != o.attempt},
		{"cached", m.cached != o.cached},
		{"reused", m.reused != o.reused},
	} {
		if f.differs {
			list = append(list, f.name)
		}
	}
	return list
}

// The kinds of change of a step.
const (
	stepChanged = "changed"
	stepOnlyA   = "only_a"
	stepOnlyB   = "only_b"
)

// diverged is a step that did not become the same. Those that are listed have d.
type diverged struct {
	at int
	d  *orchestratorv1.StepDiff
}

// diffSteps compares the steps of two runs by their paths.
func (s runs) diffSteps(ctx context.Context, a, b pipeline.RunID, limit int, out *orchestratorv1.RunDiff) error {
	marks := map[pipeline.Path]*stepMark{}
	err := s.eachStep(ctx, a, func(i int, step *pipeline.Step) {
		m := markStep(i, step)
		marks[step.Path] = &m
	})
	if err != nil {
		return err
	}
	found := shortlist{most: limit}
	err = s.eachStep(ctx, b, func(i int, step *pipeline.Step) {
		m := markStep(i, step)
		was := marks[step.Path]
		if was == nil {
			out.StepsOnlyB++
			found.add(i, step, stepOnlyB, nil)
			return
		}
		was.seen = true
		if fields := was.fields(&m); fields != nil {
			out.StepsChanged++
			found.add(was.at, step, stepChanged, fields)
			return
		}
		out.StepsSame++
	})
	if err != nil {
		return err
	}
	err = s.eachStep(ctx, a, func(i int, step *pipeline.Step) {
		if m := marks[step.Path]; m != nil && !m.seen {
			out.StepsOnlyA++
			found.add(i, step, stepOnlyA, nil)
		}
	})
	if err != nil {
		return err
	}
	listed := map[pipeline.Path]*orchestratorv1.StepDiff{}
	for _, x := range found.sorted() {
		out.Steps = append(out.Steps, x.d)
		listed[pipeline.Path(x.d.GetPath())] = x.d
	}
	out.More = out.GetStepsChanged() + out.GetStepsOnlyA() + out.GetStepsOnlyB() - clamp(len(out.GetSteps()))
	if len(out.GetSteps()) == 0 {
		return nil
	}
	for i, id := range []pipeline.RunID{a, b} {
		err := s.eachStep(ctx, id, func(_ int, step *pipeline.Step) {
			d := listed[step.Path]
			if d == nil {
				return
			}
			d.Kind = string(step.Kind)
			side := fromStepSide(step, d)
			if i == 0 {
				d.A = side
			} else {
				d.B = side
			}
		})
		if err != nil {
			return err
		}
	}
	out.First = out.GetSteps()[0]
	return nil
}

// eachStep calls f for every step of a run, a window at a time, with how many began
// before it. The step must not be kept.
func (s runs) eachStep(ctx context.Context, id pipeline.RunID, f func(int, *pipeline.Step)) error {
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	for from := 0; ; {
		n := 0
		total, err := r.steps(ctx, from, windowSteps, func(step *pipeline.Step) bool {
			f(from+n, step)
			n++
			return n < windowSteps
		})
		if err != nil {
			return err
		}
		if total > diffSteps {
			return fault(pipeline.TooLarge, "run_too_large", "run %s has %d steps; runs of up to %d can be compared", id, total, diffSteps)
		}
		if from += n; n == 0 || from >= total {
			return nil
		}
	}
}

// shortlist keeps the steps that began first.
type shortlist struct {
	most int
	list []diverged
}

func (l *shortlist) add(at int, step *pipeline.Step, change string, fields []string) {
	l.list = append(l.list, diverged{at, &orchestratorv1.StepDiff{Path: string(step.Path), Change: change, Fields: fields}})
	if len(l.list) >= 4*l.most {
		l.list = l.sorted()
	}
}

func (l *shortlist) sorted() []diverged {
	slices.SortStableFunc(l.list, func(x, y diverged) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.d.GetPath(), y.d.GetPath()))
	})
	return l.list[:min(len(l.list), l.most)]
}

func fromStepSide(s *pipeline.Step, d *orchestratorv1.StepDiff) *orchestratorv1.StepSide {
	out := &orchestratorv1.StepSide{
		Status: stepStatus[s.Status], Attempt: s.Attempt, Duration: millis(s.StartedAt, s.FinishedAt), Usage: fromUsage(s.Usage),
		CacheHit: s.CacheHit, ReusedFrom: string(s.ReusedFrom), Reason: s.Reason,
	}
	tells := func(field string) bool { return d.GetChange() != stepChanged || slices.Contains(d.GetFields(), field) }
	if tells("parameters") && s.Parameters != nil {
		out.Parameters = fromDiffValue(s.Parameters)
	}
	if tells("output") && s.Output != nil {
		out.Output = fromDiffValue(s.Output)
	}
	if tells("error") {
		out.Error = fromFailure(s.Error)
	}
	return out
}
