package web

import (
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// stepsPage is how many steps one page of the list shows.
const stepsPage = 100

// stepRow is one step instance in the list.
type stepRow struct {
	instance
	Name  string // the last part of the path, without the pass
	Pass  string // of the loop around it, as in [2]; or empty
	Visit int32  // from the second on: how often jumps have led to it; else 0
	Href  string // opens the drawer
	Open  bool   // its drawer is open
	Begin string // since the run began
	seq   int32
}

// stepsData is a window on a run's steps.
type stepsData struct {
	Rows    []stepRow
	From    int32 // number of the first row, from 1
	Total   int32 // rows over all windows
	Newer   string
	Older   string
	Flat    bool // filtered: rows show their whole path and no tree
	Chips   []stepChip
	Screen  screen
	Now     time.Time
	Waiting bool // the run has not begun any step yet
}

// stepChip filters the list by a status.
type stepChip struct {
	State state
	Count int32
	Href  string
	On    bool
}

// window returns the part of the steps that the screen shows.
func (v *view) window(sc screen) stepsData {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := stepsData{Screen: sc, Now: time.Now(), Flat: sc.Status != "" || sc.Query != ""}
	d.Waiting = len(v.steps) == 0 && !finalRun(v.run.GetStatus())
	for st := api.Step_PENDING; st <= api.Step_CANCELLED; st++ {
		name := string(stepState(st))
		if v.tally[st] == 0 && sc.Status != name {
			continue
		}
		c := stepChip{State: stepState(st), Count: v.tally[st], On: sc.Status == name, Href: sc.with("status", name, "at", "")}
		if c.On {
			c.Href = sc.with("status", "", "at", "")
		}
		d.Chips = append(d.Chips, c)
	}
	for _, i := range v.tree() {
		in := v.steps[i]
		if !sc.shows(in) {
			continue
		}
		if d.Total >= sc.At && len(d.Rows) < stepsPage {
			d.Rows = append(d.Rows, v.row(in, sc))
		}
		d.Total++
	}
	d.From = sc.At + 1
	if sc.At > 0 {
		d.Newer = sc.with("at", zeroEmpty(max(0, sc.At-stepsPage)))
	}
	if sc.At+stepsPage < d.Total {
		d.Older = sc.with("at", itoa(sc.At+stepsPage))
	}
	return d
}

func zeroEmpty(n int32) string {
	if n == 0 {
		return ""
	}
	return itoa(n)
}

// shows reports whether the list's filter lets an instance through.
func (sc screen) shows(in *instance) bool {
	if sc.Status != "" && string(stepState(in.Status)) != sc.Status {
		return false
	}
	if sc.Under != "" && in.node.id != sc.Under && !strings.HasPrefix(in.node.id, sc.Under+"/") && !strings.HasPrefix(in.node.id, sc.Under+"[") {
		return false
	}
	return sc.Query == "" || strings.Contains(in.Path, sc.Query)
}

func (v *view) row(in *instance, sc screen) stepRow {
	r := stepRow{instance: *in, Name: in.Path, Open: sc.Step == in.Path, Href: sc.with("step", in.Path), seq: in.seq}
	if i := strings.LastIndexByte(in.Path, '/'); i >= 0 {
		r.Name = in.Path[i+1:]
	}
	if _, parent, _ := place(in.Path); in.pass >= 0 && (in.parent < 0 || v.steps[in.parent].Path == parent) {
		r.Name, _, _ = strings.Cut(r.Name, "[")
		r.Pass = "[" + itoa(in.pass) + "]"
	}
	r.Name, r.Visit = split(r.Name)
	if begin := human.Moment(v.run.GetStartedAt()); !in.Start.IsZero() && !begin.IsZero() {
		r.Begin = "+" + human.Span(in.Start.Sub(begin))
	}
	return r
}

// What says what the step does.
func (r stepRow) What() string { return doing(r.Kind, r.Action) }

// Depth is the class of the indentation.
func (r stepRow) Depth() string { return "depth-" + itoa(int32(min(r.depth, 8))) }

// rowIDs names the rows of a window in order: while it stays the same, rows can
// be exchanged one by one.
func rowIDs(d stepsData) string {
	var b strings.Builder
	b.WriteByte('#') // also an empty window is one that was drawn
	for _, r := range d.Rows {
		b.WriteByte(' ')
		b.WriteString(r.Path)
	}
	return b.String()
}
