package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/a-h/templ"
	"go.yaml.in/yaml/v4"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// draft is a run that is being written: everything the form holds, so that a
// refused one comes back as it was.
type draft struct {
	Source   string
	Pipeline string // the registered pipeline that Source came from, or empty
	Version  string
	Values   map[string]string // of the inputs, by name, as typed
	Answers  map[string]string // to <AUTO> tags, by key, as typed
	More     string            // further inputs as YAML or JSON
	Labels   string            // one key=value per line
	Priority string
	Key      string // makes a form that is sent twice start one run
}

// newData is what the page of a new run shows.
type newData struct {
	Draft    draft
	Pipeline *api.Pipeline // nil: the source cannot be read yet
	Found    findings
	Refused  refusal
	Plan     *dryPlan // what a dry run says; nil: there was none
	Focus    string   // the tag that is to be answered
	// Recorded is what a run that is forked has been given for its tags, by their
	// keys; nil: the run is nobody's fork.
	Recorded map[string]*api.Answer
}

// findings is what validation says; Checked tells an empty list from none yet.
type findings struct {
	Checked     bool
	Diagnostics []*api.Diagnostic
	Truncated   int32
}

// mark is a line of the editor that has a finding.
type mark struct {
	Line     int32  `json:"line"`
	Severity string `json:"severity"`
	Text     string `json:"text"`
}

func (f findings) marks() []mark {
	out := []mark{}
	for _, d := range f.Diagnostics {
		if d.GetLine() > 0 {
			out = append(out, mark{Line: d.GetLine(), Severity: d.GetSeverity(), Text: d.GetMessage()})
		}
	}
	return out
}

// errors counts what refuses the pipeline.
func (f findings) errors() int {
	n := 0
	for _, d := range f.Diagnostics {
		if d.GetSeverity() == "error" {
			n++
		}
	}
	return n
}

// starter is what an empty editor offers.
const starter = `id: hello
inputs:
  name: {type: string, default: world, description: Who is greeted}
steps:
  - id: greet
    command: [echo, "Hello {{ inputs.name }}"]
outputs:
  text: "{{ greet }}"
`

// newRun shows the form: empty, or filled from a registered pipeline
// (?pipeline=&version=) or from an earlier run (?run=).
func (s *site) newRun(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	d := draft{Source: starter, Key: rand.Text(), Values: map[string]string{}, Answers: map[string]string{}}
	switch {
	case q.Get("run") != "":
		id := q.Get("run")
		def, err := s.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: id}, bigAnswers)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		run, err := s.runs.GetRun(ctx, &api.GetRunRequest{Id: id}, bigAnswers)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		d.Source = def.GetSource()
		for _, m := range members(run.GetInputs()) {
			d.Values[m.Name] = typed(m.Value)
		}
		for _, k := range sortedKeys(run.GetLabels()) {
			d.Labels += k + "=" + run.GetLabels()[k] + "\n"
		}
	case q.Get("pipeline") != "":
		p, err := s.pipelines.GetPipeline(ctx, &api.GetPipelineRequest{Name: q.Get("pipeline"), Version: q.Get("version")}, bigAnswers)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		d.Source, d.Pipeline, d.Version = p.GetSource(), p.GetId(), p.GetVersion()
	}
	data, err := s.check(ctx, d)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"New run", "new", newPage(data)})
}

// typed is a JSON value as one would type it into its field.
func typed(value string) string {
	var s string
	if json.Unmarshal([]byte(value), &s) == nil && value != "null" {
		return s
	}
	return value
}

// check validates the draft's source and describes it.
func (s *site) check(ctx context.Context, d draft) (newData, error) {
	out := newData{Draft: d}
	got, err := s.pipelines.ValidatePipeline(ctx, &api.ValidatePipelineRequest{Source: d.Source}, bigAnswers)
	if err != nil {
		return out, err
	}
	out.Found = findings{Checked: true, Diagnostics: got.GetDiagnostics(), Truncated: got.GetTruncated()}
	if out.Found.errors() > 0 {
		// What was registered with its files is fine, though its source alone is not.
		if p, ok := s.unchanged(ctx, d); ok {
			out.Found, out.Pipeline = findings{Checked: true}, p
		}
		return out, nil
	}
	// What validates can be described; if not, the form shows the box for all inputs.
	out.Pipeline, err = s.pipelines.ExplainPipeline(ctx, &api.ExplainPipelineRequest{Source: d.Source}, bigAnswers)
	if err != nil {
		if _, code := describe(err); code >= http.StatusInternalServerError {
			return out, err
		}
		out.Pipeline = nil
	}
	return out, nil
}

// unchanged is the registered pipeline that a draft came from, if its source is
// still the same.
func (s *site) unchanged(ctx context.Context, d draft) (*api.Pipeline, bool) {
	if d.Pipeline == "" {
		return nil, false
	}
	p, err := s.pipelines.GetPipeline(ctx, &api.GetPipelineRequest{Name: d.Pipeline, Version: d.Version}, bigAnswers)
	return p, err == nil && p.GetSource() == d.Source
}

func readDraft(r *http.Request) (draft, error) {
	if err := r.ParseForm(); err != nil {
		return draft{}, err
	}
	d := draft{
		// Forms send line ends as CR LF.
		Source:   strings.ReplaceAll(r.PostForm.Get("source"), "\r\n", "\n"),
		Pipeline: r.PostForm.Get("pipeline"), Version: r.PostForm.Get("version"),
		More: r.PostForm.Get("more"), Labels: r.PostForm.Get("labels"), Priority: r.PostForm.Get("priority"),
		Key: cmp.Or(r.PostForm.Get("key"), rand.Text()), Values: map[string]string{}, Answers: map[string]string{},
	}
	for name := range r.PostForm {
		if in, ok := strings.CutPrefix(name, "in."); ok {
			d.Values[in] = strings.ReplaceAll(r.PostForm.Get(name), "\r\n", "\n")
		}
		if key, ok := strings.CutPrefix(name, "auto."); ok {
			d.Answers[key] = strings.ReplaceAll(r.PostForm.Get(name), "\r\n", "\n")
		}
	}
	return d, nil
}

// checkRun answers the editor while somebody types.
func (s *site) checkRun(w http.ResponseWriter, r *http.Request) {
	d, err := readDraft(r)
	if err != nil {
		http.Error(w, "the form is too large or broken", http.StatusBadRequest)
		return
	}
	data, err := s.check(r.Context(), d)
	if err != nil {
		p, code := describe(err)
		http.Error(w, p.Text, code)
		return
	}
	parts := []fragment{{"findings", findingsList(data.Found)}}
	if data.Found.errors() == 0 { // else the form and drawing of the last good text stay
		parts = append(parts, fragment{"inputs", inputsForm(data)}, fragment{"holes", holesForm(data)}, fragment{"preview", previewPane(data.Pipeline)})
	}
	patches, err := draw(r.Context(), parts...)
	if err != nil {
		s.log.WarnContext(r.Context(), "fragment not drawn", "path", r.URL.Path, "err", err)
		http.Error(w, "the findings could not be drawn", http.StatusInternalServerError)
		return
	}
	s.writeFrame(w, r, frame{Patches: patches, Marks: data.Found.marks()})
}

// submitRun starts the run, or shows the form again with what is wrong.
func (s *site) submitRun(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	d, err := readDraft(r)
	if err != nil {
		s.complain(w, r, http.StatusRequestEntityTooLarge, problem{
			Title: "Too large", Text: "The form is too large or broken. A pipeline may hold 8 MiB.",
		})
		return
	}
	data, err := s.check(ctx, d)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if r.PostForm.Get("do") == "check" {
		s.show(w, r, http.StatusOK, page{"New run", "new", newPage(data)})
		return
	}
	req, wrong := s.request(ctx, data)
	dry := r.PostForm.Get("do") == "dry"
	if len(wrong.Inputs) == 0 && wrong.Text == "" {
		var run *api.Run
		if dry {
			if data.Plan, err = s.dryRun(ctx, req); err == nil {
				s.show(w, r, http.StatusOK, page{"Dry run", "new", newPage(data)})
				return
			}
		} else if run, err = s.runs.CreateRun(ctx, req); err == nil {
			http.Redirect(w, r, pathOfRun(run.GetId()), http.StatusSeeOther) //nolint:gosec // begins with /runs/
			return
		}
		if _, code := describe(err); code == http.StatusInternalServerError {
			s.log.ErrorContext(ctx, "run not created", "err", err)
		}
		wrong = refused(err)
		if len(wrong.Diagnostics) > 0 {
			data.Found = findings{Checked: true, Diagnostics: wrong.Diagnostics, Truncated: wrong.Truncated}
		}
		data.Draft.Key = rand.Text() // the next try is another request
	}
	data.Refused = wrong
	s.show(w, r, http.StatusBadRequest, page{"New run", "new", newPage(data)})
}

// request turns the form into the API's request; wrong says what cannot be read.
func (s *site) request(ctx context.Context, data newData) (*api.CreateRunRequest, refusal) {
	d := data.Draft
	wrong := refusal{Inputs: map[string]string{}}
	req := &api.CreateRunRequest{Source: d.Source, IdempotencyKey: d.Key}
	if p, ok := s.unchanged(ctx, d); ok { // it runs under its registered name
		req.Source, req.Pipeline, req.Version = "", p.GetId(), p.GetVersion()
	}
	values := map[string]json.RawMessage{}
	if strings.TrimSpace(d.More) != "" {
		raw, err := fromYAML(d.More)
		if err == nil {
			err = json.Unmarshal(raw, &values)
		}
		if err != nil {
			wrong.Text = "The further inputs are not a list of name: value in YAML or JSON."
		}
	}
	for _, in := range data.Pipeline.GetInputs() {
		text := d.Values[in.GetName()]
		if text == "" {
			continue
		}
		raw, err := inputValue(in.GetType(), text)
		if err != nil {
			wrong.Inputs[in.GetName()] = err.Error()
			continue
		}
		values[in.GetName()] = raw
	}
	all, err := json.Marshal(values)
	if err != nil {
		wrong.Text = "The inputs cannot be written as JSON."
	}
	req.Inputs = string(all)
	req.Answers = answers(data, &wrong)
	if len(wrong.Inputs) > 0 {
		wrong.Text = "Some values cannot be read."
	}
	req.Labels = labelsOf(d.Labels)
	if p := strings.TrimSpace(d.Priority); p != "" {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil {
			wrong.Text = "The priority is not a whole number."
		}
		req.Priority = int32(n)
	}
	return req, wrong
}

func labelsOf(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k = strings.TrimSpace(k); k != "" {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

// widget says which control an input gets.
func widget(typ string) string {
	switch base(typ) {
	case "integer", "number", "boolean", "enum":
		return base(typ)
	case "string", "path", "file", "duration", "secret":
		return "text"
	}
	return "yaml"
}

// base drops what stands around or behind a type's name: optional<list<string>>
// is a list.
func base(typ string) string {
	typ = strings.TrimPrefix(strings.TrimSuffix(strings.TrimPrefix(typ, "optional<"), ">"), "optional ")
	if i := strings.IndexAny(typ, "<( "); i > 0 {
		typ = typ[:i]
	}
	return typ
}

// inputValue reads what was typed into a field as JSON.
func inputValue(typ, text string) (json.RawMessage, error) {
	switch widget(typ) {
	case "text":
		return json.Marshal(text)
	case "integer", "number":
		n := strings.TrimSpace(text)
		if !json.Valid([]byte(n)) || strings.ContainsAny(n, `"[{`) || n == "true" || n == "false" || n == "null" {
			return nil, errors.New("this is not a number")
		}
		return json.RawMessage(n), nil
	case "boolean":
		return json.RawMessage(text), nil
	case "enum":
		if json.Valid([]byte(text)) {
			return json.RawMessage(text), nil // the form offers JSON values
		}
		return json.Marshal(text)
	}
	return fromYAML(text)
}

// fromYAML reads YAML, and so JSON, as JSON. Valid JSON passes untouched, so
// that integers stay exact.
func fromYAML(text string) (json.RawMessage, error) {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text), nil
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("this is neither YAML nor JSON: %s", clip(err.Error(), 160))
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("this cannot be written as JSON")
	}
	return b, nil
}

// choices are the values of an enum: as JSON for the form, and as text.
func choices(in *api.Input) []member { return jsonList(in.GetValues()) }

// signature changes when the form of the inputs has to be drawn anew; while it
// stays, the page keeps the fields that somebody is typing into.
func signature(p *api.Pipeline) string {
	if p == nil {
		return "none"
	}
	q := url.Values{}
	for _, in := range p.GetInputs() {
		q.Add(in.GetName(), in.GetType()+"|"+in.GetDefault()+"|"+in.GetValues()+"|"+strconv.FormatBool(in.GetRequired())+"|"+in.GetDescription())
	}
	return q.Encode()
}

// typeOf is an input's type as people read it.
func typeOf(in *api.Input) string {
	if in.GetType() == "enum" {
		var names []string
		for _, c := range choices(in) {
			names = append(names, c.Name)
		}
		return clip(strings.Join(names, " | "), 60)
	}
	return in.GetType()
}

func placeholder(in *api.Input) string {
	if d := in.GetDefault(); d != "" && d != "null" {
		return clip(typed(d), 80)
	}
	return ""
}

// notGiven is what a choice says while nothing is chosen.
func notGiven(in *api.Input) string {
	if p := placeholder(in); p != "" {
		return "default: " + p
	}
	return "not given"
}

// described ties a field to the text below it.
func described(in *api.Input, wrong string) templ.Attributes {
	a := templ.Attributes{"aria-describedby": "about-" + in.GetName()}
	if wrong != "" {
		a["aria-invalid"] = "true"
	}
	return a
}
