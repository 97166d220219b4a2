package web

import (
	"context"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of what the drawer of a step reads and shows.
const (
	drawerLog    = 60       // lines
	drawerValue  = 32 << 10 // bytes of a value
	attemptsScan = 2000     // runs with more events show only the newest attempt
)

// stepData is what the drawer of one step shows.
type stepData struct {
	Path     string
	Step     *api.Step // nil: it has not begun
	Attempts []attempt
	Excerpt  []sourceLine
	File     string
	Line     int32
	Def      string // address of the definition at that line
	Log      []logLine
	Filled   filledList // values of its <AUTO> tags
	Talk     *talk      // the calls that it has made; nil: none
	Final    bool       // the run has ended: it can be run again from here
	Screen   screen
	Now      time.Time
}

// attempt is one try of a step.
type attempt struct {
	N     int32
	State state
	Start time.Time
	End   time.Time
	Error string
	Asked bool // it was laid down until people had decided, and another goes on
}

// drawer builds the open drawer, or nil when the address names no step.
func (s *site) drawer(ctx context.Context, v *view, sc screen, live []livePiece) (templ.Component, error) {
	if sc.Step == "" {
		return nil, nil //nolint:nilnil // closed is a state
	}
	d, err := s.stepData(ctx, v, sc)
	if err != nil {
		return nil, err
	}
	if d.Talk != nil {
		d.Talk.Live = live
	}
	return stepDrawer(d), nil
}

func (s *site) stepData(ctx context.Context, v *view, sc screen) (stepData, error) {
	d := stepData{Path: sc.Step, Final: v.final(), Screen: sc, Now: time.Now()}
	step, err := v.step(ctx, s.runs, sc.Step)
	if err != nil {
		return d, err
	}
	d.Step = step
	id, _, _ := place(sc.Step)
	id = strings.TrimSuffix(id, "[]")
	v.mu.Lock()
	gn := v.graph.byInstance[id]
	seq := v.seq
	v.mu.Unlock()
	if gn.GetLine() > 0 {
		def, err := s.runs.GetDefinition(ctx, &api.GetDefinitionRequest{Id: sc.Run}, bigAnswers)
		if err != nil {
			return d, err
		}
		d.Line, d.File = gn.GetLine(), def.GetFile()
		d.Excerpt = excerpt(def.GetSource(), gn.GetLine(), 1, 8)
		d.Def = sc.with("tab", "definition") + "#L" + itoa(gn.GetLine())
		if hasHole(def.GetHoles(), sc.Step) {
			if d.Filled, err = s.filledData(ctx, sc.Run, sc.Step); err != nil {
				return d, err
			}
		}
	}
	if step == nil {
		return d, nil
	}
	if talks(step) {
		if d.Talk, err = s.talkData(ctx, sc, step); err != nil {
			return d, err
		}
		d.Talk.newest(talkShown)
		if len(d.Talk.Entries) == 0 && finalStep(step.GetStatus()) {
			d.Talk = nil
		}
	}
	if d.Log, err = s.readLogs(ctx, sc.Run, sc.Step, drawerLog); err != nil {
		return d, err
	}
	if step.GetAttempt() > 1 && seq <= attemptsScan {
		d.Attempts, err = s.attempts(ctx, sc.Run, sc.Step)
	}
	return d, err
}

// attempts gathers the tries of a step from the run's events.
func (s *site) attempts(ctx context.Context, run, path string) ([]attempt, error) {
	var out []attempt
	for after := int32(0); ; {
		page, err := s.runs.ListEvents(ctx, &api.ListEventsRequest{Id: run, After: after, PageSize: stepPage}, bigAnswers)
		if err != nil {
			return nil, err
		}
		for _, e := range page.GetEvents() {
			after = e.GetSeq()
			if e.GetPath() != path {
				continue
			}
			_, step, _, err := states(e)
			if err != nil {
				return nil, err
			}
			if step == nil {
				continue
			}
			out = tried(out, e, step)
		}
		if page.GetNextPageToken() == "" && len(page.GetEvents()) < stepPage {
			return out, nil
		}
	}
}

// tried adds what an event says of a step's attempts.
func tried(list []attempt, e *api.Event, step *api.Step) []attempt {
	n := max(step.GetAttempt(), 1)
	if len(list) == 0 || list[len(list)-1].N != n {
		list = append(list, attempt{N: n, Start: human.Moment(e.GetAt())})
	}
	a := &list[len(list)-1]
	waited := a.State == "waiting"
	a.State = stepState(step.GetStatus())
	a.Error = step.GetError().GetMessage()
	if e.GetType() == "step_retrying" && step.GetReason() != "decided" { // what people have decided goes on
		a.State = "failed"
		a.Asked = waited && a.Error == ""
	}
	if a.State != "running" && a.End.IsZero() {
		a.End = human.Moment(e.GetAt())
	}
	return list
}

// Name is the last part of the path.
func (d stepData) Name() string { return d.Path[strings.LastIndexByte(d.Path, '/')+1:] }

// Within is the rest of the path.
func (d stepData) Within() string { return d.Path[:strings.LastIndexByte(d.Path, '/')+1] }
