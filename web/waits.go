package web

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of what a run's page shows of what it waits for.
const (
	asksShown  = 5
	waitsShown = 10
)

// waitsData is what a run waits for: for people, with their forms, and for the
// rest of the world.
type waitsData struct {
	Status api.Run_Status
	Causes []cause // why it is where it is, besides what follows
	Asks   []question
	More   bool // there are more questions than are shown
	Waits  []waitLine
	Left   int // waits that are not shown
	Screen screen
	Now    time.Time
}

// waitLine is one step that waits for a time, a signal or files.
type waitLine struct {
	*api.Waiting
	Path string
	Href string
}

// waitsData gathers what the run waits for now.
func (s *site) waitsData(ctx context.Context, v *view, sc screen) (waitsData, error) {
	d := waitsData{Screen: sc, Now: time.Now()}
	asking, told := false, map[string]bool{}
	v.mu.Lock()
	run := v.run
	d.Status = run.GetStatus()
	if finalRun(d.Status) {
		v.mu.Unlock()
		if asksWhy(d.Status) && run.GetError() == nil { // else the failure itself says it
			d.Causes = causes(s.whyCauses(ctx, sc.Run), told, sc)
		}
		return d, nil
	}
	for i, w := range v.waits {
		told[v.steps[i].Path] = true
		if w.GetFor() == "approval" {
			asking = true
			continue
		}
		path := v.steps[i].Path
		d.Waits = append(d.Waits, waitLine{Waiting: w, Path: path, Href: sc.with("step", path)})
	}
	asking = asking || !v.complete
	v.mu.Unlock()
	if asksWhy(d.Status) {
		d.Causes = causes(s.whyCauses(ctx, sc.Run), told, sc)
	}
	slices.SortFunc(d.Waits, func(a, b waitLine) int { return strings.Compare(a.Path, b.Path) })
	if d.Left = len(d.Waits) - waitsShown; d.Left > 0 {
		d.Waits = d.Waits[:waitsShown]
	}
	if !asking {
		return d, nil
	}
	open, more, err := s.asked(ctx, sc.Run)
	for _, a := range open {
		d.Asks = append(d.Asks, question{Approval: a, Back: sc.with(), Now: d.Now})
	}
	d.More = more
	return d, err
}

// waitWord says what a step waits for, without when.
func waitWord(w *api.Waiting) string {
	switch w.GetFor() {
	case "timer":
		return "a time"
	case "signal":
		return "the signal " + w.GetSignal()
	case "files":
		return "files like " + w.GetFiles()
	case "approval":
		return "a decision"
	case "retry":
		return "its next attempt"
	}
	return human.Phrase(w.GetFor())
}

// dueWord says what the time of a wait means.
func dueWord(w *api.Waiting) string {
	if w.GetFor() == "timer" || w.GetFor() == "retry" {
		return "goes on"
	}
	return "gives up"
}

// sendSignal leaves a signal for a run.
func (s *site) sendSignal(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	req := &api.SendSignalRequest{Id: id, Name: r.FormValue("name")}
	if text := strings.ReplaceAll(r.FormValue("data"), "\r\n", "\n"); strings.TrimSpace(text) != "" {
		raw, err := fromYAML(text)
		if err != nil {
			s.complain(w, r, http.StatusBadRequest, problem{Title: titleOf[http.StatusBadRequest], Text: "The data of the signal: " + err.Error() + "."})
			return
		}
		req.Data = string(raw)
	}
	if _, err := s.runs.SendSignal(r.Context(), req, bigAnswers); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, backTo(r.FormValue("back"), pathOfRun(id)), http.StatusSeeOther) //nolint:gosec // the run's own page
}

// autoOf reads the value that an event says an <AUTO> tag was filled in with.
func autoOf(e *api.Event) (*api.Answer, bool) {
	var data struct {
		Auto *struct {
			Key, From, Model, Kind string
			Value                  json.RawMessage
		}
	}
	if json.Unmarshal([]byte(e.GetData()), &data) != nil || data.Auto == nil {
		return nil, false
	}
	a := data.Auto
	return &api.Answer{Param: a.Key, Value: string(a.Value), From: a.From, Model: a.Model, Kind: a.Kind}, true
}
