package web

import (
	"context"
	"net/http"
	"time"

	"github.com/a-h/templ"
	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// patience is how long a page waits for the steps of a long run that nobody has
// looked at yet; the rest follows over the live feed or at the next reload. Who
// asks for certain steps wants those, and waits longer.
const (
	patience     = 150 * time.Millisecond
	longPatience = 20 * time.Second
)

// head is what stands above the tabs of a run.
type head struct {
	Run     *api.Run
	State   state
	Tally   tally
	Done    int32
	Total   int32 // steps that have begun or surely may still begin
	Usage   usage
	Reading int32 // how many steps have been read, while the rest is still missing; else 0
	Screen  screen
	Now     time.Time
}

// runData is a run's page.
type runData struct {
	Head    head
	Screen  screen
	Seq     int32
	Live    bool
	Refused string // what the API said of a form on the page
	Waits   waitsData
	Body    templ.Component
	Drawer  templ.Component // nil: closed
}

func (s *site) run(w http.ResponseWriter, r *http.Request) {
	s.showRun(w, r, http.StatusOK, readScreen(chi.URLParam(r, "id"), r.URL.Query()), "")
}

// showRun shows a run's page; refused is what the API said of a form on it.
func (s *site) showRun(w http.ResponseWriter, r *http.Request, code int, sc screen, refused string) {
	ctx := r.Context()
	wait := patience
	if sc.Step != "" || sc.At > 0 || sc.Status != "" || sc.Under != "" || sc.Query != "" {
		wait = longPatience
	}
	v, err := s.open(ctx, sc.Run, wait)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	drawer, err := s.drawer(ctx, v, sc, nil)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if wantsFrame(r) { // the script opens or closes the drawer
		s.sendFrame(w, r, fragment{"drawer", drawerPane(drawer)})
		return
	}
	body, err := s.tab(ctx, v, sc)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	waits, err := s.waitsData(ctx, v, sc)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d := runData{Head: v.head(sc), Screen: sc, Seq: v.at(), Refused: refused, Waits: waits, Body: body, Drawer: drawer}
	d.Live = !finalRun(d.Head.Run.GetStatus()) || d.Head.Reading > 0
	s.show(w, r, code, page{d.Head.Run.GetPipeline() + " " + short(sc.Run), "runs", runPage(d)})
}

// open returns the run's view, up to date. It asks the API for the run first,
// so that nobody sees through the view what the API would not show.
func (s *site) open(ctx context.Context, id string, patience time.Duration) (*view, error) {
	run, err := s.runs.GetRun(ctx, &api.GetRunRequest{Id: id}, bigAnswers)
	if err != nil {
		return nil, err
	}
	v := s.views.of(id)
	if v.ended() && !finalRun(run.GetStatus()) { // it has been taken up again
		s.views.forget(v)
		v = s.views.of(id)
	}
	return v, v.catchUp(ctx, s.runs, patience)
}

// ended reports whether the view shows a whole run that has ended.
func (v *view) ended() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.complete && finalRun(v.run.GetStatus())
}

// head returns what stands above the tabs.
func (v *view) head(sc screen) head {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := head{
		Run: v.run, State: runState(v.run.GetStatus()), Tally: v.tally, Done: v.tally.done(), Total: v.tally.all(),
		Usage: v.usage, Screen: sc, Now: time.Now(),
	}
	if !v.complete {
		h.Reading = int32(len(v.steps))
		u := v.run.GetUsage()
		h.Done, h.Total = u.GetSteps(), max(u.GetSteps(), h.Total)
		h.Usage = usageOf(u)
	}
	if !finalRun(v.run.GetStatus()) {
		for _, gn := range v.graph.GetNodes() {
			if n := v.nodes[v.graph.instance(gn)]; n == nil || n.tally.all() == 0 {
				h.Total++
			}
		}
	}
	return h
}

// Meter is the share of steps in each state, in percent of all, for the bar.
func (h head) Meter() []bar {
	if h.Total == 0 {
		return nil
	}
	var out []bar
	at := 0.0
	for _, st := range []api.Step_Status{
		api.Step_COMPLETED, api.Step_SKIPPED, api.Step_FAILED, api.Step_CANCELLED, api.Step_RUNNING, api.Step_WAITING,
	} {
		if n := h.Tally[st]; n > 0 {
			share := float64(n) / float64(h.Total)
			out = append(out, bar{X: percent(at), W: percent(share), State: stepState(st)})
			at += share
		}
	}
	return out
}

// tab builds the open tab.
func (s *site) tab(ctx context.Context, v *view, sc screen) (templ.Component, error) {
	switch sc.Tab {
	case "timeline":
		return timelineTab(v.timeline(sc, time.Now())), nil
	case "steps":
		return stepsTab(v.window(sc)), nil
	case "events":
		d, err := s.eventsData(ctx, v, sc)
		return eventsTab(d), err
	case "logs":
		lines, err := s.readLogs(ctx, sc.Run, "", logTail)
		return logsTab(logsData{Lines: lines, Live: !v.final(), Run: sc.Run}), err
	case "artifacts":
		d, err := s.artifactsData(ctx, v, sc)
		return artifactsTab(d), err
	case "outputs":
		return outputsTab(v.current()), nil
	case "definition":
		def, err := s.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: sc.Run}, bigAnswers)
		if err != nil {
			return nil, err
		}
		d := v.definition(def, sc)
		if len(def.GetHoles()) > 0 {
			d.Filled, err = s.filledData(ctx, sc.Run, "")
		}
		return definitionTab(d), err
	}
	return graphTab(v.drawn(sc, -1), sc), nil
}

func (v *view) current() *api.Run {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.run
}

func (v *view) final() bool { return finalRun(v.current().GetStatus()) }
