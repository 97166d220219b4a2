package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// live shows a run as a tree of its steps that is drawn anew in its place
// while the run goes on, and stays on the screen in the end. It asks nothing of
// the terminal and leaves the keyboard alone, so that Ctrl-C stays a signal.
type live struct {
	tty   *os.File
	w     io.Writer // paints on tty in the colours that it has
	stop  chan struct{}
	ended chan struct{}

	mu    sync.Mutex // guards what follows
	lines []string   // the tree, with its moving parts left open
	drawn []int      // widths of the lines on the screen
	frame int
}

// frames is the wheel that turns beside what runs.
var frames = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// turn is the time of a frame.
const turn = 100 * time.Millisecond

// The control sequences of the terminal.
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	beginFrame = "\x1b[?2026h" // hold the picture until endFrame, where that is known
	endFrame   = "\x1b[?2026l"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

func newLive(tty *os.File, environ []string) *live {
	r := &live{tty: tty, w: colorprofile.NewWriter(tty, environ), stop: make(chan struct{}), ended: make(chan struct{})}
	go r.paint()
	return r
}

// paint draws a frame now and then until the end.
func (r *live) paint() {
	defer close(r.ended)
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		r.frame++
		width, height := r.size()
		lines := fit(r.lines, width, height-1)
		wheel := painted("RUNNING", frames[r.frame%len(frames)])
		for i := range lines {
			lines[i] = strings.Replace(lines[i], spinner, wheel, 1)
		}
		r.put("", lines)
		r.mu.Unlock()
	}
}

func (r *live) size() (width, height int) {
	width, height, err := term.GetSize(r.tty.Fd())
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

// put replaces what is drawn by lines, with a text above them that stays. The
// caller holds mu.
func (r *live) put(above string, lines []string) {
	var b strings.Builder
	b.WriteString(beginFrame + hideCursor)
	if up := r.rows(); up > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", up)
	}
	b.WriteString(above)
	r.drawn = r.drawn[:0]
	for _, l := range lines {
		b.WriteString(l + clearLine + "\n")
		r.drawn = append(r.drawn, ansi.StringWidth(l))
	}
	b.WriteString(clearBelow + showCursor + endFrame)
	_, _ = io.WriteString(r.w, b.String()) // nobody is left to hear of it
}

// rows is how many rows of the screen the drawn lines take; a window that has
// become narrower since has wrapped them.
func (r *live) rows() int {
	width, _ := r.size()
	n := 0
	for _, w := range r.drawn {
		n += max((w+width-1)/width, 1)
	}
	return n
}

func (r *live) event(p *progress, _ change) { r.draw(p) }

func (r *live) line(p *progress, l *api.LogLine) {
	s := p.steps[l.GetPath()]
	if s == nil {
		return
	}
	lines := strings.Split(strings.TrimRight(l.GetText(), "\r\n"), "\n")
	if last := strings.TrimSpace(harmlessLine(lines[len(lines)-1])); last != "" {
		s.log = last
	}
}

func (r *live) tick(p *progress) { r.draw(p) }

// draw remembers what is to be seen in the next frame.
func (r *live) draw(p *progress) {
	if time.Since(p.drawn) < turn/2 {
		return
	}
	lines := (&drawing{p: p, now: time.Now()}).lines()
	p.drawn = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = lines
}

func (r *live) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for l := range strings.SplitSeq(text, "\n") {
		b.WriteString(l + clearLine + "\n")
	}
	r.put(b.String(), nil)
}

// maxFinal is how many lines of the final tree are printed.
const maxFinal = 200

func (r *live) close(p *progress) {
	close(r.stop)
	<-r.ended
	r.mu.Lock()
	defer r.mu.Unlock()
	width, _ := r.size()
	lines := fit((&drawing{p: p, now: time.Now(), final: true}).lines(), width, maxFinal)
	for i := range lines {
		lines[i] = strings.Replace(lines[i], spinner, painted("RUNNING", icon("RUNNING")), 1)
	}
	r.put("", lines)
}

// spinner stands in lines where the wheel turns.
const spinner = "\ufffc"

// fit cuts lines to the width, and their number to the height: it keeps the
// first, and of the rest those around what runs, waits or has failed.
func fit(lines []string, width, height int) []string {
	lines = slices.Clone(lines)
	if height < 4 {
		height = 4
	}
	if len(lines) > height {
		keep := height - 2
		var out []string
		hidden := 0
		busy := 0
		for _, l := range lines[1:] {
			if important(l) {
				busy++
			}
		}
		others := max(keep-busy, 0)
		for _, l := range lines[1:] {
			switch {
			case len(out) >= keep:
				hidden++
			case important(l):
				out = append(out, l)
			case others > 0:
				others--
				out = append(out, l)
			default:
				hidden++
			}
		}
		lines = append(lines[:1:1], out...)
		lines = append(lines, dim("  … and "+plural(hidden, "step")+" more"))
	}
	if width > 0 {
		for i := range lines {
			lines[i] = cut(lines[i], width-1)
		}
	}
	return lines
}

func important(line string) bool {
	return strings.Contains(line, spinner) || strings.Contains(line, icon("FAILED")) || strings.Contains(line, icon("WAITING"))
}

var (
	faint  = lipgloss.NewStyle().Faint(true)
	strong = lipgloss.NewStyle().Bold(true)
)

// painted is a status in its colour.
func painted(status, text string) string {
	switch status {
	case "COMPLETED":
		return lipgloss.NewStyle().Foreground(lipgloss.Green).Render(text)
	case "FAILED":
		return lipgloss.NewStyle().Foreground(lipgloss.Red).Render(text)
	case "CANCELLED":
		return lipgloss.NewStyle().Foreground(lipgloss.Magenta).Render(text)
	case "RUNNING", "WAITING", "PAUSED", "QUEUED":
		return lipgloss.NewStyle().Foreground(lipgloss.Yellow).Render(text)
	}
	return dim(text)
}

// drawing turns a progress into lines.
type drawing struct {
	p     *progress
	now   time.Time
	final bool // the command leaves: what has not begun is of no interest
	rows  []row
}

// row is a step in the tree.
type row struct {
	depth  int
	name   string
	status string
	time   string
	note   string
}

// maxPasses is how many passes of a loop are shown at once.
const maxPasses = 4

func (d *drawing) lines() []string {
	run := &d.p.run
	head := strong.Render(run.Pipeline) + "  " + d.sign(run.Status) + " " + painted(run.Status, word(run.Status))
	if run.StartedAt != nil {
		end := d.now
		if run.FinishedAt != nil {
			end = *run.FinishedAt
		}
		head += "  " + human.Span(end.Sub(*run.StartedAt))
	}
	if run.Reason == "cancelling" && !run.final() {
		head += "  " + painted("CANCELLED", "cancelling")
	}
	head += "  " + dim(run.ID)
	d.body(d.p.roots, "", 0)
	name, status, clock := 0, 0, 0
	for _, r := range d.rows {
		name = max(name, 2*r.depth+ansi.StringWidth(r.name))
		status = max(status, len(word(r.status)))
		clock = max(clock, ansi.StringWidth(r.time))
	}
	name = min(name, 40)
	lines := []string{head}
	for _, r := range d.rows {
		text := cut(r.name, max(40-2*r.depth, 8))
		pad := strings.Repeat(" ", max(name-2*r.depth-ansi.StringWidth(text), 0))
		line := "  " + strings.Repeat("  ", r.depth) + d.sign(r.status) + " " + text + pad + "  " +
			painted(r.status, word(r.status)) + strings.Repeat(" ", status-len(word(r.status)))
		if clock > 0 {
			line += "  " + strings.Repeat(" ", clock-ansi.StringWidth(r.time)) + r.time
		}
		if r.note != "" {
			line += "  " + r.note
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

func (d *drawing) sign(status string) string {
	if status == "" {
		return " "
	}
	if status == "RUNNING" {
		return spinner
	}
	return painted(status, icon(status))
}

func word(status string) string { return strings.ToLower(status) }

// body adds the rows of a body; path is what the paths of its instances begin
// with.
func (d *drawing) body(body []*planNode, path string, depth int) {
	for _, n := range body {
		at := path + n.id
		if v := d.p.visits[at]; v > 1 {
			at = visitPath(at, v)
		}
		d.step(n, at, path, depth)
	}
}

func (d *drawing) step(n *planNode, path, prefix string, depth int) {
	s := d.p.steps[path]
	if s == nil {
		if !d.final && depth == 0 {
			d.rows = append(d.rows, row{depth: depth, name: n.id, status: "PENDING"})
		}
		return
	}
	r := row{depth: depth, name: n.id, status: s.Status}
	if n.id == "" {
		r.name = path[max(strings.LastIndexByte(path, '['), 0):]
	}
	if t := s.lasted(d.now); t >= 0 && s.Status != "SKIPPED" {
		r.time = human.Span(t)
	}
	var notes []string
	if c := s.count(); c != "" {
		notes = append(notes, c)
	}
	if text := strings.TrimSpace(remark(s)); text != "" && s.final() {
		notes = append(notes, text)
	}
	switch {
	case s.final():
	case s.Status == "WAITING" && s.Error != nil:
		notes = append(notes, fmt.Sprintf("attempt %d failed: %s", s.Attempt, firstLine(s.Error)))
	case s.Status == "WAITING" && s.Waiting != nil:
		notes = append(notes, s.Waiting.text(d.p.questions, d.now))
	case s.Status == "WAITING" && s.Reason != "":
		notes = append(notes, human.Phrase(s.Reason))
	case s.call != "" || s.talk != "":
		if s.call != "" {
			notes = append(notes, s.call)
		}
		if s.Usage.USD > 0 {
			notes = append(notes, fmt.Sprintf("$%.4f in all", s.Usage.USD))
		}
		if line := lastLine(s.talk); line != "" {
			notes = append(notes, dim(line))
		}
	case s.log != "":
		notes = append(notes, dim(s.log))
	}
	r.note = strings.Join(notes, "  ")
	d.rows = append(d.rows, r)
	switch {
	case n.choice():
		d.body(n.body, prefix, depth+1)
	case n.loop():
		d.passes(n, s, path, depth+1)
	default:
		d.body(n.body, path+"/", depth+1)
	}
}

// passes adds the rows of a loop's passes that run or have failed.
func (d *drawing) passes(n *planNode, s *stepFacts, path string, depth int) {
	var shown []int
	for i, x := range s.passes {
		if x.failed || !s.final() {
			shown = append(shown, i)
		}
	}
	slices.Sort(shown)
	hidden := 0
	if len(shown) > maxPasses {
		hidden = len(shown) - maxPasses
		shown = shown[:maxPasses]
	}
	for _, i := range shown {
		at := passPath(path, i)
		if d.p.steps[at] != nil { // the loop's only step has no id of its own
			d.step(&planNode{}, at, at, depth)
			continue
		}
		x := s.passes[i]
		status := "RUNNING"
		if x.failed {
			status = "FAILED"
		}
		d.rows = append(d.rows, row{depth: depth, name: fmt.Sprintf("[%d]", i), status: status})
		d.body(n.body, at+"/", depth+1)
	}
	if hidden > 0 {
		d.rows = append(d.rows, row{depth: depth, name: fmt.Sprintf("… and %d more", hidden), status: ""})
	}
}
