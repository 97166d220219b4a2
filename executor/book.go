package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// maxBook bounds the results, in bytes of JSON, that one run may reuse: its owner
// holds them in memory until they are used.
const maxBook = 256 << 20

// book is what a run may use of another run's log: how its leaves ended. A run
// that is nobody's fork has none, and nil is an empty book.
type book struct {
	fork    pipeline.Fork
	source  *pipeline.Run
	records map[pipeline.Path]*record
	answers map[pipeline.Path][]settled // to <AUTO> tags
	passes  map[pipeline.Path]*pipeline.Data
	tags    map[string]map[string]pipeline.Digest // of the source's steps, by their keys and the tags'

	plan  *upstream // of the run's own plan
	is    map[*pipeline.StepDef]pipeline.Digest
	cut   int32 // what began at this record or later runs again; 0: nothing does for that
	size  int
	notes *forkNotes // of a preview
}

// record is how one instance ended. Only the records of a replay hold how an
// instance began that is no leaf.
type record struct {
	begun, seq int32 // of its first record, and of its end; 0: it has not ended
	attempt    int32
	is, given  pipeline.Digest
	begin, end *pipeline.Data
	skipped    bool // its end is a step_skipped
}

// settled is the answer to a tag, and when it was recorded.
type settled struct {
	seq int32
	pipeline.Answer
}

// openBook reads what a run may use of its source's log, to the record that its
// fork names.
func (e *Executor) openBook(ctx context.Context, fork *pipeline.Fork, prog *program) (*book, error) {
	source, err := e.cfg.Store.Run(ctx, fork.From)
	if err != nil {
		return nil, fmt.Errorf("read the run %s, whose results are used: %w", fork.From, err)
	}
	was, err := e.program(ctx, source)
	if err != nil {
		return nil, err
	}
	b := &book{
		fork: *fork, source: source, records: map[pipeline.Path]*record{}, answers: map[pipeline.Path][]settled{},
		passes: map[pipeline.Path]*pipeline.Data{}, tags: map[string]map[string]pipeline.Digest{}, plan: newUpstream(prog.plan),
	}
	old := newUpstream(was.plan)
	b.plan.without(old)
	if b.is, err = e.definitions(prog, b.plan); err != nil {
		return nil, err
	}
	defs, err := e.definitions(was, old)
	if err != nil {
		return nil, err
	}
	for _, s := range old.list {
		if tags := tagsOf(s.def); len(tags) > 0 {
			b.tags[s.key] = tags
		}
	}
	for ev, err := range e.cfg.Store.Events(ctx, source.ID, 0) {
		if err != nil {
			return nil, fmt.Errorf("read the log of run %s, whose results are used: %w", source.ID, err)
		}
		if ev.Seq > fork.Seq {
			break
		}
		b.read(&ev, old, defs)
		if b.size > maxBook {
			return nil, &pipeline.Error{
				Kind: pipeline.TooLarge, Reason: "results_too_large",
				Text: fmt.Sprintf("the results of run %s are larger than the %d MiB that one run can use again; start a new run instead", source.ID, maxBook>>20),
			}
		}
	}
	for _, path := range fork.Rerun {
		rec := b.records[path]
		if rec == nil {
			return nil, b.noStep(path)
		}
		if b.cut == 0 || rec.begun < b.cut {
			b.cut = rec.begun
		}
	}
	return b, nil
}

// noStep is the error of a rerun from a step that the run did not come to.
func (b *book) noStep(path pipeline.Path) error {
	names := make([]string, 0, len(b.records))
	for p := range b.records {
		names = append(names, string(p))
	}
	text := fmt.Sprintf("run %s has no step %s", b.source.ID, path)
	if like := expr.Suggest(string(path), names); like != "" {
		text += fmt.Sprintf(" (did you mean %q?)", like)
	}
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "unknown_step", Text: text + "; runs get lists its steps"}
}

// read takes one event of the source.
func (b *book) read(ev *pipeline.Event, old *upstream, defs map[*pipeline.StepDef]pipeline.Digest) {
	d := &ev.Data
	if ev.Path == "" {
		return
	}
	switch ev.Type {
	case pipeline.StateSet:
		if b.replays() {
			b.passes[passKey(ev.Path, d.Pass)] = d
		}
		return
	case pipeline.AutoResolved:
		if d.Auto != nil {
			b.answers[ev.Path] = append(b.answers[ev.Path], settled{ev.Seq, *d.Auto})
			b.at(ev)
		}
		return
	case pipeline.StepStarted, pipeline.StepIsWaiting, pipeline.StepRetrying, pipeline.StepFinished, pipeline.StepWasSkipped:
	default:
		return
	}
	rec := b.at(ev)
	step := old.steps[stepKey(ev.Path)]
	if step == nil {
		return
	}
	rec.is = defs[step.def]
	if leaf(step.def) {
		if rec.given == "" && (d.Parameters != nil || d.Given != "" || d.Consumed != nil) { // what its first attempt was given
			rec.given = given(b.source.ID, d.Parameters, d.Consumed, d.Given)
		}
	}
	switch ev.Type {
	case pipeline.StepFinished, pipeline.StepWasSkipped:
		if rec.given == "" {
			rec.given = given(b.source.ID, nil, nil, "")
		}
		rec.seq, rec.attempt, rec.skipped = ev.Seq, max(ev.Attempt, 1), ev.Type == pipeline.StepWasSkipped
		if b.replays() || leaf(step.def) && d.Status == pipeline.StepCompleted {
			end := *d
			end.Parameters, end.Usage = nil, nil
			rec.end = &end
			b.size += len(pipeline.EncodeValue(end.Output))
		} else {
			rec.end = &pipeline.Data{Status: d.Status, Reason: d.Reason}
		}
	case pipeline.StepStarted:
		if !leaf(step.def) {
			rec.begin = d
			b.size += len(pipeline.EncodeValue(d.Items))
		}
	}
}

// passKey tells the beginning of a pass from its end.
func passKey(path pipeline.Path, begins bool) pipeline.Path {
	if begins {
		return path + "^"
	}
	return path
}

func (b *book) at(ev *pipeline.Event) *record {
	rec := b.records[ev.Path]
	if rec == nil {
		rec = &record{begun: ev.Seq}
		b.records[ev.Path] = rec
	}
	return rec
}

// previews reports whether it is only asked what would be reused.
func (b *book) previews() bool { return b != nil && b.notes != nil }

func (b *book) replays() bool { return b != nil && b.fork.Mode == pipeline.ForkReplay }

// may reports whether there is a record of the instance that may fit.
func (b *book) may(path pipeline.Path) bool { return b != nil && b.records[path] != nil }

// deny forgets the record of an instance that runs again.
func (b *book) deny(path pipeline.Path) { delete(b.records, path) }

// offer is a step that is about to begin.
type offer struct {
	params   any // as they are recorded
	consumed []pipeline.Version
	more     pipeline.Digest // of what else reaches it
	// tame says that all it does is to answer its parameters: what ran again before
	// it cannot have changed anything that it does not see.
	tame bool
}

// find is the record that an instance can end with, or why there is none.
func (b *book) find(t *pipeline.Task, run pipeline.RunID, o *offer) (*record, string) {
	rec, step := b.records[t.Path], b.plan.steps[stepKey(t.Path)]
	if step == nil || rec == nil || rec.seq == 0 {
		return nil, "it has no result yet"
	}
	switch {
	case step.final:
		return nil, "finally steps belong to each run"
	case rec.end.Status != pipeline.StepCompleted:
		return nil, "it " + ending(rec)
	case b.cut > 0 && rec.begun >= b.cut:
		if slices.Contains(b.fork.Rerun, t.Path) {
			return nil, "it is to run again"
		}
		return nil, fmt.Sprintf("it began after %s, from which on everything runs again", b.fork.Rerun[0])
	case rec.is != b.is[t.Def]:
		return nil, "its definition has changed"
	case rec.given != given(run, o.params, o.consumed, o.more):
		return nil, "what it is given has changed"
	case step.shaken != "" && !o.tame:
		return nil, fmt.Sprintf("it follows %s, which has changed or runs again", step.shaken)
	}
	return rec, ""
}

// ending says in words how a record that is not reused ended.
func ending(rec *record) string {
	switch rec.end.Status {
	case pipeline.StepFailed:
		return "failed"
	case pipeline.StepCancelled:
		return "was cancelled"
	}
	return "was skipped"
}

// differs says what tells a record from the step as it is now; empty: nothing.
func (b *book) differs(t *pipeline.Task, rec *record, run pipeline.RunID, o *offer) string {
	switch {
	case rec.is != b.is[t.Def]:
		return "its definition"
	case rec.given != given(run, o.params, o.consumed, o.more):
		return "what it is given"
	}
	return ""
}

// answer is what a model has filled in for a tag that is as it was, or whatever a
// replay finds; nil: nothing that can be used.
func (b *book) answer(path pipeline.Path, a *pipeline.Auto) *pipeline.Answer {
	if b == nil {
		return nil
	}
	for i := range b.answers[path] {
		s := &b.answers[path][i]
		if s.Key != a.Key {
			continue
		}
		if b.replays() {
			return &s.Answer
		}
		is, err := sourceDigest(a)
		if err != nil || s.From == fromAnswer || s.From == fromFallback || b.cut > 0 && s.seq >= b.cut || b.tags[stepKey(path)][a.Key] != is {
			return nil // answers and fallbacks are evaluated as ever
		}
		return &s.Answer
	}
	return nil
}

// note keeps account of what has run again, from the run's own events.
func (b *book) note(ev *pipeline.Event) {
	if ev.Path == "" || ev.Data.Reused != nil {
		return
	}
	step := b.plan.steps[stepKey(ev.Path)]
	if step == nil {
		return
	}
	was := b.records[ev.Path]
	switch ev.Type {
	case pipeline.StepFinished:
		if leaf(step.def) {
			b.plan.changed(ev.Path)
		}
	case pipeline.StepWasSkipped:
		if was != nil && !was.skipped {
			b.plan.changed(ev.Path)
		}
	case pipeline.StepStarted: // of a block
		if was == nil || was.begin == nil {
			return
		}
		then, now := was.begin, &ev.Data
		if then.Branch != nil && now.Branch != nil && *then.Branch != *now.Branch || len(now.Items) < len(then.Items) {
			b.plan.changed(ev.Path)
		}
	}
}

// bookOf opens the book of a run that is somebody's fork, and notes what has run
// again already; nil: it is nobody's.
func (e *Executor) bookOf(ctx context.Context, run *pipeline.Run, prog *program) (*book, error) {
	if run.ForkedFrom == "" {
		return nil, nil //nolint:nilnil // nil is an empty book
	}
	var b *book
	for ev, err := range e.cfg.Store.Events(ctx, run.ID, 0) {
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if b == nil {
			if ev.Data.Fork == nil {
				return nil, errors.New("read log: it does not say whose results it uses")
			}
			if b, err = e.openBook(ctx, ev.Data.Fork, prog); pipeline.KindOf(err) == pipeline.NotFound {
				e.log.Warn("the run whose results are used is gone; all steps run again", "run", run.ID, "source", run.ForkedFrom)
				b, err = e.lostBook(ev.Data.Fork, prog)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		b.note(&ev)
	}
	return b, nil
}
