package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of the planner.
const (
	forkShown   = 500    // steps of a preview
	pathsChosen = 200    // steps that the form offers
	forkScan    = 50_000 // records in which the beginning of a step is looked for
)

// forkForm is a new run that is being planned from an old one, as typed. Draft
// holds its inputs, its definition and its answers.
type forkForm struct {
	By    string // record or step: what says where it leaves the old run
	At    string // the newest record whose results are used; empty: all
	From  string // the step from which on everything runs again
	Auto  string // the <AUTO> tag whose value is to be edited; empty: none
	Draft draft
}

// forkData is what the planner shows.
type forkData struct {
	Run     *api.Run
	Form    forkForm
	New     newData // the fields of the inputs and answers, and findings
	Edited  bool    // the definition is not the run's own
	Last    int32   // the newest record
	Paths   []string
	Steps   []*api.ForkStep
	Left    int // steps that are not shown
	Tally   map[string]int
	Refused string
}

// forked is a request that is whole: a rerun from a step, or a fork.
type forked struct {
	rerun string
	fork  *api.ForkRunRequest
}

func (s *site) forkPlanner(w http.ResponseWriter, r *http.Request) {
	s.planFork(w, r, func(run *api.Run, def *api.Definition) (forkForm, error) {
		q := r.URL.Query()
		f := forkForm{By: "record", At: q.Get("at"), From: q.Get("from"), Draft: draft{
			Source: def.GetSource(), Pipeline: run.GetPipeline(), Version: run.GetVersion(), Values: ownInputs(run), Answers: map[string]string{}, Key: rand.Text(),
		}}
		if f.From != "" {
			f.By = "step"
		}
		f.Auto = q.Get("auto")
		return f, nil
	})
}

func (s *site) submitFork(w http.ResponseWriter, r *http.Request) {
	s.planFork(w, r, func(run *api.Run, _ *api.Definition) (forkForm, error) {
		d, err := readDraft(r)
		d.Pipeline, d.Version = run.GetPipeline(), run.GetVersion()
		return forkForm{
			Auto: r.PostForm.Get("tag"), By: r.PostForm.Get("by"), At: strings.TrimSpace(r.PostForm.Get("at")), From: strings.TrimSpace(r.PostForm.Get("from")), Draft: d,
		}, err
	})
}

// planFork shows what would become of each step, or starts the run.
func (s *site) planFork(w http.ResponseWriter, r *http.Request, read func(*api.Run, *api.Definition) (forkForm, error)) {
	ctx, id := r.Context(), chi.URLParam(r, "id")
	v, err := s.open(ctx, id, patience)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	run, err := s.runs.GetRun(ctx, &api.GetRunRequest{Id: id}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	def, err := s.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: id}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	form, err := read(run, def)
	if err != nil {
		s.complain(w, r, http.StatusRequestEntityTooLarge, problem{
			Title: "Too large", Text: "The form is too large or broken. A pipeline may hold 8 MiB.",
		})
		return
	}
	d := forkData{Run: run, Form: form, Edited: form.Draft.Source != def.GetSource(), Last: v.at(), Paths: v.paths(pathsChosen)}
	if d.New, err = s.check(ctx, form.Draft); err != nil {
		s.fail(w, r, err)
		return
	}
	if !d.Edited {
		d.New.Found = findings{Checked: true} // it has run, with its files
	}
	if d.New.Pipeline == nil && !d.Edited {
		d.New.Pipeline = &api.Pipeline{Inputs: plainInputs(run), Holes: def.GetHoles()}
	}
	if d.New.Recorded, err = s.recorded(ctx, id, form.Auto); err != nil {
		s.fail(w, r, err)
		return
	}
	if a := d.New.Recorded[form.Auto]; a != nil && r.Method == http.MethodGet {
		form.Draft.Answers[form.Auto] = typed(a.GetValue())
	}
	if p := d.New.Pipeline; p != nil {
		p.Holes = instanceHoles(p.GetHoles(), form.Draft.Answers)
	}
	d.New.Draft, d.New.Focus = form.Draft, form.Auto
	code := http.StatusOK
	req, refused, err := s.forking(ctx, &d)
	if err == nil && refused.Text == "" {
		if r.Method == http.MethodPost && r.PostForm.Get("do") == "start" {
			var made *api.Run
			if made, err = s.startFork(ctx, id, form.Draft.Key, req); err == nil {
				http.Redirect(w, r, pathOfRun(made.GetId()), http.StatusSeeOther) //nolint:gosec // begins with /runs/
				return
			}
		} else {
			err = s.previewFork(ctx, id, req, &d)
		}
	}
	if err != nil {
		var p problem
		if p, code = describe(err); code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		refused = refused.with(err)
		if p.Code == "run_active" {
			refused.Text += " Choose a record instead of a step to fork it while it runs."
		}
		if len(refused.Diagnostics) > 0 {
			d.New.Found = findings{Checked: true, Diagnostics: refused.Diagnostics, Truncated: refused.Truncated}
		}
		d.New.Draft.Key = rand.Text() // the next try is another request
	} else if refused.Text != "" {
		code = http.StatusBadRequest
	}
	d.Refused, d.New.Refused = refused.Text, refused
	s.show(w, r, code, page{"Fork " + short(id), "runs", forkPage(d)})
}

// with is the refusal with what the API says.
func (f refusal) with(err error) refusal {
	out := refused(err)
	maps.Copy(out.Inputs, f.Inputs)
	return out
}

// forking turns the form into a request. A step chosen without any edit is a
// rerun; with edits it is a fork at the record before the step began.
func (s *site) forking(ctx context.Context, d *forkData) (forked, refusal, error) {
	wrong := refusal{Inputs: map[string]string{}}
	req := &api.ForkRunRequest{Id: d.Run.GetId(), Inputs: d.inputs(&wrong), Answers: answers(d.New, &wrong)}
	if d.Edited {
		req.Source = d.Form.Draft.Source
	}
	if len(wrong.Inputs) > 0 {
		wrong.Text = "Some values cannot be read."
	}
	if d.Form.By != "step" {
		if d.Form.At != "" {
			n, err := strconv.ParseInt(d.Form.At, 10, 32)
			if err != nil || n < 1 {
				wrong.Text = "The record is not a number from 1 on."
			}
			req.At = int32(n)
		}
		return forked{fork: req}, wrong, nil
	}
	if d.Form.From == "" {
		wrong.Text = "Say from which step on everything runs again, by its path."
	}
	if wrong.Text != "" {
		return forked{}, wrong, nil
	}
	if req.GetInputs()+req.GetSource()+req.GetAnswers() == "" {
		return forked{rerun: d.Form.From}, wrong, nil
	}
	at, err := s.beginOf(ctx, d.Run.GetId(), d.Form.From)
	if at == 0 && err == nil {
		wrong.Text = "No step " + d.Form.From + " has begun in this run, or it began too late in a long log; choose a record instead."
	}
	req.At = at - 1
	if at == 1 {
		wrong.Text = "Nothing stands before that step; start a new run instead."
	}
	return forked{fork: req}, wrong, err
}

// inputs are those that are not as the run has them, as a JSON object; empty:
// there is none. An emptied field is as the run has it.
func (d *forkData) inputs(wrong *refusal) string {
	own, values := ownInputs(d.Run), map[string]json.RawMessage{}
	for _, in := range d.New.Pipeline.GetInputs() {
		text := d.Form.Draft.Values[in.GetName()]
		if was, ok := own[in.GetName()]; text == "" || ok && text == was {
			continue
		}
		raw, err := inputValue(in.GetType(), text)
		if err != nil {
			wrong.Inputs[in.GetName()] = err.Error()
			continue
		}
		values[in.GetName()] = raw
	}
	if len(values) == 0 {
		return ""
	}
	all, err := json.Marshal(values)
	if err != nil {
		wrong.Text = "The inputs cannot be written as JSON."
	}
	return string(all)
}

// ownInputs are the inputs of a run, as one would type them.
func ownInputs(run *api.Run) map[string]string {
	out := map[string]string{}
	for _, m := range members(run.GetInputs()) {
		out[m.Name] = typed(m.Value)
	}
	return out
}

// plainInputs describes the inputs of a run whose definition cannot be described
// without its files.
func plainInputs(run *api.Run) []*api.Input {
	var out []*api.Input
	for _, m := range members(run.GetInputs()) {
		typ := "any"
		if strings.HasPrefix(m.Value, `"`) {
			typ = "string"
		}
		out = append(out, &api.Input{Name: m.Name, Type: typ})
	}
	return out
}

// beginOf is the record with which a step began; 0: there is none among those
// that are looked at.
func (s *site) beginOf(ctx context.Context, run, path string) (int32, error) {
	for after := int32(0); after < forkScan; {
		page, err := s.runs.ListEvents(ctx, &api.ListEventsRequest{Id: run, After: after, PageSize: stepPage}, bigAnswers)
		if err != nil {
			return 0, err
		}
		for _, e := range page.GetEvents() {
			if e.GetPath() == path {
				return e.GetSeq(), nil
			}
			after = e.GetSeq()
		}
		if page.GetNextPageToken() == "" && len(page.GetEvents()) < stepPage {
			break
		}
	}
	return 0, nil
}

// paths are those of the first steps of the run.
func (v *view) paths(most int) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]string, 0, min(most, len(v.steps)))
	for _, in := range v.steps[:min(most, len(v.steps))] {
		out = append(out, in.Path)
	}
	return out
}

func (s *site) startFork(ctx context.Context, id, key string, req forked) (*api.Run, error) {
	if req.fork == nil {
		return s.runs.RerunRun(ctx, &api.RerunRunRequest{Id: id, From: req.rerun, IdempotencyKey: key}, bigAnswers)
	}
	req.fork.IdempotencyKey = key
	return s.runs.ForkRun(ctx, req.fork, bigAnswers)
}

// previewFork asks what would become of each step.
func (s *site) previewFork(ctx context.Context, id string, req forked, d *forkData) error {
	ask := &api.PreviewForkRequest{Id: id, Mode: "rerun", From: req.rerun}
	if f := req.fork; f != nil {
		ask = &api.PreviewForkRequest{Id: id, Mode: "fork", At: f.GetAt(), Inputs: f.GetInputs(), Source: f.GetSource(), Answers: f.GetAnswers()}
	}
	got, err := s.runs.PreviewFork(ctx, ask, bigAnswers)
	if err != nil {
		return err
	}
	d.Steps, d.Tally = got.GetSteps(), map[string]int{}
	for _, st := range d.Steps {
		d.Tally[st.GetDecision()]++
	}
	if d.Left = len(d.Steps) - forkShown; d.Left > 0 {
		d.Steps = d.Steps[:forkShown]
	}
	return nil
}

// forkDecision is how a decision about a step is told.
type forkDecision struct{ Word, Text, Counted, Icon, Class string }

// forkDecisions are in the order in which the summary counts them.
var forkDecisions = []forkDecision{
	{"reuse", "Reuse", "reused", "completed", "s-completed"},
	{"rerun", "Rerun", "run again", "again", "s-queued"},
	{"skip", "Skip", "skipped", "skipped", "s-skipped"},
	{"unknown", "It depends", "not known yet", "unknown", "s-waiting"},
}

func decisionOf(word string) forkDecision {
	i := slices.IndexFunc(forkDecisions, func(d forkDecision) bool { return d.Word == word })
	if i < 0 {
		return forkDecisions[len(forkDecisions)-1]
	}
	return forkDecisions[i]
}

// Summary counts the decisions.
func (d forkData) Summary() string {
	var parts []string
	for _, c := range forkDecisions {
		if n := d.Tally[c.Word]; n > 0 {
			parts = append(parts, count(n)+" "+c.Counted)
		}
	}
	return sentence(strings.Join(parts, ", "))
}

func pathOfFork(id string) string { return "/runs/" + url.PathEscape(id) + "/fork" }
