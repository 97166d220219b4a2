package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// reporter shows a run while it goes on. Its methods are called by one
// goroutine, but note.
type reporter interface {
	// event shows what an event has changed; the progress has it already.
	event(p *progress, c change)
	// line shows what a step has printed.
	line(p *progress, l *api.LogLine)
	// tick lets time pass: it is called a few times a second.
	tick(p *progress)
	// note shows a word of this command's own. It may be called concurrently.
	note(text string)
	// close shows how the run ended, or stands, when the command leaves it.
	close(p *progress)
}

// silent shows nothing.
type silent struct{}

func (silent) event(*progress, change)      {}
func (silent) line(*progress, *api.LogLine) {}
func (silent) tick(*progress)               {}
func (silent) note(string)                  {}
func (silent) close(*progress)              {}

// plain shows a run as lines, for logs and pipes: what steps print, then how
// they ended. That a step has begun is only said when it takes a while.
//
// What steps print and what happens to them comes on two streams. Each piece is
// held for a moment and shown in the order of its time, so that what a step has
// printed stands before its end.
type plain struct {
	w    io.Writer
	held []piece              // in the order of their time
	wait map[string]time.Time // steps that have begun, and when to say so
	rest map[string]string    // unfinished lines by path and stream
}

// piece is something to show.
type piece struct {
	at   time.Time // when it happened
	last bool      // what was printed at that time stands before it
	came time.Time // when it was heard of
	show func()
}

// hold is how long a piece waits for others of an earlier time.
const hold = 150 * time.Millisecond

// patience is how long a step may take before its begin is worth a line.
const patience = 400 * time.Millisecond

func newPlain(w io.Writer) *plain {
	return &plain{w: w, wait: map[string]time.Time{}, rest: map[string]string{}}
}

func (r *plain) event(p *progress, c change) {
	r.keep(c.at, true, func() { r.tell(p, c) })
}

func (r *plain) line(_ *progress, l *api.LogLine) {
	r.keep(human.Moment(l.GetAt()), false, func() { r.printed(l) })
}

// keep holds a piece. Of one time, what was printed comes first.
func (r *plain) keep(at time.Time, last bool, show func()) {
	i := len(r.held)
	for i > 0 && (r.held[i-1].at.After(at) || r.held[i-1].last && !last && r.held[i-1].at.Equal(at)) {
		i--
	}
	r.held = slices.Insert(r.held, i, piece{at, last, time.Now(), show})
}

// release shows what was held long enough, and all that is older.
func (r *plain) release(now time.Time) {
	n := 0
	for i := range r.held {
		if now.Sub(r.held[i].came) >= hold {
			n = i + 1
		}
	}
	for _, x := range r.held[:n] {
		x.show()
	}
	r.held = slices.Delete(r.held, 0, n)
}

// tell shows an event.
func (r *plain) tell(p *progress, c change) {
	switch c.kind {
	case "run_created":
		r.say("run %s of %s", p.run.ID, p.run.Pipeline)
		return
	case "run_resumed":
		r.say("continued")
		return
	case "workspace_lost":
		r.say("%s the workspace is lost: %s were on another machine, or could not be restored", icon("FAILED"), c.lost)
		return
	case "signal_received":
		if c.sign == "cancel" {
			r.say("cancelling: running steps are stopped, finally steps still run")
		}
		return
	}
	s := c.step
	if s == nil {
		return
	}
	if c.call != "" {
		delete(r.wait, s.Path)
		r.say("%s %s %s", icon("RUNNING"), s.Path, c.call)
		return
	}
	if s.Status == "RUNNING" && c.kind == "step_started" {
		if node := p.plan[planKey(s.Path)]; node == nil || !node.block() && !node.loop() {
			r.wait[s.Path] = time.Now().Add(patience)
		}
		return
	}
	delete(r.wait, s.Path)
	if c.kind == "step_retrying" && s.Reason == "decided" {
		r.say("%s %s goes on", icon("RUNNING"), s.Path)
		return
	}
	if c.kind == "step_retrying" && s.Error == nil {
		return // people have decided: it is about to go on
	}
	if c.kind == "step_retrying" {
		text := fmt.Sprintf("%s attempt %d of %s failed: %s", icon("WAITING"), s.Attempt, s.Path, firstLine(s.Error))
		if in := time.Until(c.due); !c.due.IsZero() && in > 0 {
			text += "; trying again in " + human.Span(in.Round(time.Millisecond))
		}
		r.say("%s", text)
		return
	}
	if s.Status == "WAITING" && s.Waiting != nil {
		r.flush(s.Path)
		r.say("%s %s waits %s", icon(s.Status), s.Path, s.Waiting.text(p.questions, time.Now()))
		return
	}
	if !s.final() {
		return
	}
	r.flush(s.Path)
	text := icon(s.Status) + " " + s.Path + " " + strings.ToLower(s.Status)
	if d := s.lasted(time.Now()); d >= 0 && s.Status != "SKIPPED" {
		text += "  " + human.Span(d)
	}
	if n := s.count(); n != "" {
		text += "  " + n
	}
	r.say("%s%s", text, remark(s))
}

// printed shows what a step has printed, as whole lines.
func (r *plain) printed(l *api.LogLine) {
	key := l.GetPath() + "\x00" + l.GetStream()
	text := r.rest[key] + l.GetText()
	for {
		before, after, ok := strings.Cut(text, "\n")
		if !ok {
			break
		}
		r.say("%s | %s", l.GetPath(), strings.TrimSuffix(before, "\r"))
		text = after
	}
	r.rest[key] = text
	if text == "" {
		delete(r.rest, key)
	}
}

// flush prints the unfinished lines of a step that is over.
func (r *plain) flush(path string) {
	for _, stream := range []string{"stdout", "stderr", "system"} {
		key := path + "\x00" + stream
		if rest := r.rest[key]; rest != "" {
			r.say("%s | %s", path, rest)
		}
		delete(r.rest, key)
	}
}

func (r *plain) tick(p *progress) {
	now := time.Now()
	r.release(now)
	for path, due := range r.wait {
		if now.After(due) {
			delete(r.wait, path)
			if s := p.steps[path]; s != nil && !s.final() {
				r.say("%s %s running", icon("RUNNING"), path)
			}
		}
	}
}

func (r *plain) note(text string) { r.say("%s", text) }

func (r *plain) close(p *progress) {
	r.release(time.Now().Add(hold))
	for key, rest := range r.rest {
		path, _, _ := strings.Cut(key, "\x00")
		r.say("%s | %s", path, rest)
	}
	clear(r.rest)
	if p.run.final() {
		text := icon(p.run.Status) + " run " + strings.ToLower(p.run.Status)
		if p.run.StartedAt != nil && p.run.FinishedAt != nil {
			text += "  " + human.Span(p.run.FinishedAt.Sub(*p.run.StartedAt))
		}
		r.say("%s", text)
	}
}

// say writes one line at once, so that lines of several writers stay whole.
func (r *plain) say(format string, args ...any) {
	_, _ = io.WriteString(r.w, fmt.Sprintf(format, args...)+"\n") // nobody is left to hear of it
}

// icon is a status as a sign; it always stands beside the word.
func icon(status string) string {
	switch status {
	case "COMPLETED":
		return "✓"
	case "FAILED":
		return "✗"
	case "SKIPPED":
		return "↷"
	case "CANCELLED":
		return "■"
	case "WAITING", "PAUSED", "QUEUED":
		return "◷"
	case "RUNNING":
		return "▸"
	}
	return "○"
}

// remark is what else there is to say of a step that is over.
func remark(s *stepFacts) string {
	var parts []string
	if s.Status == "SKIPPED" && s.Reason != "" {
		parts = append(parts, skipped(s.Reason))
	}
	if s.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", s.Attempt))
	}
	for _, a := range s.Artifacts {
		parts = append(parts, fmt.Sprintf("published %s %d", a.Artifact, a.Version))
	}
	if s.CacheHit {
		parts = append(parts, "from the cache")
	}
	if s.ReusedFrom != "" {
		parts = append(parts, "reused")
	}
	if s.Status == "FAILED" && s.Error != nil && (s.Error.Step == "" || s.Error.Step == s.Path) {
		parts = append(parts, firstLine(s.Error))
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, ", ")
}

// skipped says why a step was.
func skipped(reason string) string {
	if reason == "jumped" {
		return "jumped over"
	}
	return human.Phrase(reason)
}

// text says what a step waits for, behind "waits".
func (w *waitFacts) text(questions map[string]string, now time.Time) string {
	var text string
	switch w.For {
	case "timer":
		if w.Due == nil {
			return "for a time"
		}
		return "until " + clock(*w.Due, now)
	case "signal":
		text = "for the signal " + w.Signal
	case "files":
		text = "for files " + w.Files
	case forApproval:
		text = "for an answer"
		if q := questions[w.Approval]; q != "" {
			text += ": " + cut(plainText(string(pipeline.EncodeValue(q))), 70)
		}
	default:
		text = "for " + human.Phrase(w.For)
	}
	if w.Due != nil {
		text += ", until " + clock(*w.Due, now)
	}
	return harmlessLine(text)
}

func firstLine(f *fault) string {
	if f == nil {
		return ""
	}
	line, _, more := strings.Cut(harmless(f.Message), "\n")
	if more {
		line = strings.TrimSuffix(line, ":")
	}
	return line
}
