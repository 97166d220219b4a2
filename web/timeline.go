package web

import (
	"strconv"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Sizes of a timeline: up to timelineRows steps have a bar each; of longer runs
// each node of the plan has one row, its time cut into slices.
const (
	timelineRows   = 200
	timelineNodes  = 80
	timelineSlices = 60
)

// bar is a stretch of time in percent of the run's.
type bar struct {
	X, W  string
	State state
	Level string // of slices: how busy it was, 1 to 4; of steps: empty
	Title string
}

// lane is one row of the timeline.
type lane struct {
	ID    string
	Name  string
	Full  string
	Href  string
	Depth string
	State state
	Note  string
	Bars  []bar
	One   bool // a single step, which has a drawer
}

// tick is a mark on the axis.
type tick struct{ X, Text string }

// timelineData is a run over time.
type timelineData struct {
	Lanes []lane
	Ticks []tick
	Steps int32
	Left  int32 // nodes that have no row for want of room
	Cut   bool  // lanes are nodes, not steps
}

// leastBar is what a step of no time at all gets of the width, to be seen.
const leastBar = 0.0025

func percent(f float64) string {
	return strconv.FormatFloat(max(0, min(100, f*100)), 'f', 2, 64) + "%"
}

// timeline returns the run over time, as of now.
func (v *view) timeline(sc screen, now time.Time) timelineData {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := timelineData{Steps: int32(len(v.steps))}
	begin, end := v.extent(now)
	if begin.IsZero() {
		return d
	}
	whole := max(end.Sub(begin), time.Millisecond)
	d.Ticks = ticks(whole)
	if len(v.steps) > timelineRows {
		v.slices(&d, sc, begin, whole, now)
		return d
	}
	for _, i := range v.tree() {
		in := v.steps[i]
		l := lane{
			ID: "bar-" + in.Path, Name: in.Path, Full: in.Path, Depth: "depth-" + itoa(int32(min(in.depth, 8))),
			State: stepState(in.Status), Href: sc.with("step", in.Path), One: true,
		}
		r := v.row(in, sc)
		l.Name = r.Name
		if r.Pass != "" {
			l.Name = r.Pass + " " + r.Name
		}
		if !in.Start.IsZero() {
			stop := in.End
			if stop.IsZero() {
				stop = now
			}
			l.Note = human.Span(stop.Sub(in.Start))
			l.Bars = []bar{{
				X: percent(float64(in.Start.Sub(begin)) / float64(whole)), W: percent(max(leastBar, float64(stop.Sub(in.Start))/float64(whole))),
				State: l.State, Title: in.Path + ": " + l.State.Word() + ", " + l.Note,
			}}
		}
		d.Lanes = append(d.Lanes, l)
	}
	return d
}

// extent is when the run began and ended, or now. The caller holds mu.
func (v *view) extent(now time.Time) (begin, end time.Time) {
	begin, end = human.Moment(v.run.GetStartedAt()), human.Moment(v.run.GetFinishedAt())
	if begin.IsZero() {
		return begin, end
	}
	if end.IsZero() {
		end = now
	}
	return begin, end
}

// busy is how much time a node's steps spent in each slice.
type busy struct {
	node   *node
	time   [timelineSlices]time.Duration
	failed [timelineSlices]bool // one failed in it
	live   [timelineSlices]bool // one is running in it
}

// look is how slice k is drawn: the level grows with the number of steps that
// ran side by side; an empty one means nothing ran.
func (b *busy) look(k int, slice time.Duration) (state, string) {
	if b.time[k] == 0 {
		return "", ""
	}
	level := "1"
	switch beside := float64(b.time[k]) / float64(slice); {
	case beside > 8:
		level = "4"
	case beside > 2:
		level = "3"
	case beside > 0.5:
		level = "2"
	}
	switch {
	case b.failed[k]:
		return "failed", level
	case b.live[k]:
		return "running", level
	}
	return "completed", level
}

// slices fills one lane per node of the plan.
func (v *view) slices(d *timelineData, sc screen, begin time.Time, whole time.Duration, now time.Time) {
	d.Cut = true
	var rows []*busy
	byNode := map[*node]*busy{}
	slice := max(whole/timelineSlices, 1)
	for _, in := range v.steps {
		b := byNode[in.node]
		if b == nil {
			if len(rows) == timelineNodes {
				continue
			}
			b = &busy{node: in.node}
			byNode[in.node] = b
			rows = append(rows, b)
		}
		if in.Start.IsZero() {
			continue
		}
		stop := in.End
		if stop.IsZero() {
			stop = now
		}
		from, to := in.Start.Sub(begin), stop.Sub(begin)
		lo := min(max(int(from/slice), 0), timelineSlices-1)
		hi := min(max(int(to/slice), lo), timelineSlices-1)
		for k := lo; k <= hi; k++ {
			inside := min(to, time.Duration(k+1)*slice) - max(from, time.Duration(k)*slice)
			b.time[k] += max(inside, 1)
		}
		b.failed[hi] = b.failed[hi] || in.Status == api.Step_FAILED
		b.live[hi] = b.live[hi] || in.Status == api.Step_RUNNING
	}
	for _, row := range v.nodes {
		if row.tally.all() > 0 && byNode[row] == nil {
			d.Left++
		}
	}
	for _, b := range rows {
		l := lane{
			ID: "bar-" + b.node.id, Name: b.node.id, Full: b.node.id, Depth: "depth-0", State: b.node.tally.state(),
			Href: sc.with("tab", "steps", "under", b.node.id, "step", ""),
			Note: count(b.node.tally.done()) + "/" + count(b.node.tally.all()),
		}
		for k := 0; k < timelineSlices; {
			st, level := b.look(k, slice)
			run := 1
			for k+run < timelineSlices {
				st2, level2 := b.look(k+run, slice)
				if st2 != st || level2 != level {
					break
				}
				run++
			}
			if level != "" {
				l.Bars = append(l.Bars, bar{
					X: percent(float64(k) / timelineSlices), W: percent(float64(run) / timelineSlices), State: st, Level: level,
				})
			}
			k += run
		}
		d.Lanes = append(d.Lanes, l)
	}
}

// ticks puts about five round times on the axis.
func ticks(whole time.Duration) []tick {
	steps := []time.Duration{
		time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	}
	step := steps[len(steps)-1]
	for _, s := range steps {
		if whole/s <= 5 {
			step = s
			break
		}
	}
	for whole/step > 8 {
		step *= 2
	}
	var out []tick
	for at := time.Duration(0); at <= whole*95/100; at += step {
		text := "0"
		if at > 0 {
			text = human.Span(at)
		}
		out = append(out, tick{X: percent(float64(at) / float64(whole)), Text: text})
	}
	return out
}
