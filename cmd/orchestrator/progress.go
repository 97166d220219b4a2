package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// progress is a run as its events have told it so far, folded for showing. It
// belongs to one goroutine.
type progress struct {
	run   runFacts
	plan  map[string]*planNode // by the path of an instance without the numbers of passes
	roots []*planNode
	steps map[string]*stepFacts // by path
	// visits are how often jumps have come to a step, by its path without the
	// number of the visit; none for steps that were come to once.
	visits map[string]int
	// questions are what approvals ask, by their id, as far as it is known.
	questions map[string]string
	drawn     time.Time // when the tree was last made of it
}

// runFacts is what is shown of a run.
type runFacts struct {
	ID         string     `json:"id"`
	Pipeline   string     `json:"pipeline"`
	Status     string     `json:"status"`
	Reason     string     `json:"reason"`
	Error      *fault     `json:"error"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
}

func (r *runFacts) final() bool {
	return r.Status == "COMPLETED" || r.Status == "FAILED" || r.Status == "CANCELLED"
}

// fault is why a run or step failed.
type fault struct {
	Kind    string `json:"kind"`
	Step    string `json:"step"`
	Message string `json:"message"`
}

// stepFacts is what is shown of a step instance.
type stepFacts struct {
	Path       string      `json:"path"`
	ID         string      `json:"id"`
	Kind       string      `json:"kind"`
	Action     string      `json:"action"`
	Status     string      `json:"status"`
	Reason     string      `json:"reason"`
	Attempt    int         `json:"attempt"`
	Error      *fault      `json:"error"`
	StartedAt  *time.Time  `json:"started_at"`
	FinishedAt *time.Time  `json:"finished_at"`
	CacheHit   bool        `json:"cache_hit"`
	ReusedFrom string      `json:"reused_from"`
	Parameters parameters  `json:"parameters"`
	Waiting    *waitFacts  `json:"waiting"`
	Artifacts  []published `json:"artifacts"`

	begun  int           // of loops: passes that have begun
	done   int           // passes that are over
	passes map[int]*pass // those that are not, and those that failed
	log    string        // the last line it printed
	call   string        // its newest call of a model or a tool, in words
	talk   string        // what has come of the answer on its way

	Usage usageFacts `json:"usage"`
}

// waitFacts is what a step waits for.
type waitFacts struct {
	For      string     `json:"for"`
	Due      *time.Time `json:"due"` // of a timer its end, else the deadline
	Signal   string     `json:"signal"`
	Files    string     `json:"files"`
	Approval string     `json:"approval"`
}

// published is a version of an artifact.
type published struct {
	Artifact string `json:"artifact"`
	Version  int32  `json:"version"`
}

// parameters is what is read of a step's parameters: how many items a loop has.
type parameters struct{ items int }

// UnmarshalJSON counts the items. It cannot fail.
func (p *parameters) UnmarshalJSON(b []byte) error { //nolint:unparam // json.Unmarshaler
	var v struct {
		Items []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(b, &v) == nil { // parameters of any other form are none of ours
		p.items = len(v.Items)
	}
	return nil
}

// pass is one round of a loop.
type pass struct {
	over   int // steps of its body that are over
	failed bool
}

// planNode is a step of the plan.
type planNode struct {
	id, kind string
	body     []*planNode
	parent   *planNode
}

// block reports whether it holds other steps.
func (n *planNode) block() bool { return len(n.body) > 0 }

// loop reports whether its body has passes.
func (n *planNode) loop() bool { return loops(n.kind) }

func loops(kind string) bool {
	return kind == "for" || kind == "while" || kind == "repeat" || kind == "queue"
}

// choice reports whether what it holds stands beside it in paths: a block adds
// nothing to them but a loop its passes and a call its name.
func (n *planNode) choice() bool {
	switch n.kind {
	case "if", "match", "parallel", "compete":
		return true
	}
	return false
}

func newProgress(run *api.Run, g *api.Graph) *progress {
	p := &progress{plan: map[string]*planNode{}, steps: map[string]*stepFacts{}, questions: map[string]string{}, visits: map[string]int{}}
	p.run = runFacts{ID: run.GetId(), Pipeline: run.GetPipeline(), Status: run.GetStatus().String(), CreatedAt: human.Moment(run.GetCreatedAt())}
	byID := map[string]*planNode{}
	keys := map[*planNode]string{}
	for _, n := range g.GetNodes() { // a block stands before what it holds
		own := n.GetId()
		if i := strings.LastIndexByte(own, '/'); i >= 0 {
			own = own[i+1:]
		}
		node := &planNode{id: own, kind: n.GetKind(), parent: byID[n.GetParent()]}
		byID[n.GetId()] = node
		// The arms of a choice add nothing to the paths of what they hold.
		prefix := ""
		for up := node.parent; up != nil; up = up.parent {
			if !up.choice() {
				prefix = keys[up] + "/"
				break
			}
		}
		key := prefix + own
		keys[node] = key
		p.plan[key] = node
		if node.parent == nil {
			p.roots = append(p.roots, node)
		} else {
			node.parent.body = append(node.parent.body, node)
		}
	}
	return p
}

// eventData is the part of an event's data that is shown.
type eventData struct {
	Run    *runFacts   `json:"run"`
	Step   *stepFacts  `json:"step"`
	Due    time.Time   `json:"due"`
	Signal string      `json:"signal"`
	Call   *callFacts  `json:"call"`
	Model  string      `json:"model"`
	Usage  *usageFacts `json:"usage"`
	Files  *struct {
		Files int64 `json:"files"`
		Size  int64 `json:"size"`
	} `json:"workspace"`
}

// change is what an event has changed.
type change struct {
	kind string // the event's type
	at   time.Time
	step *stepFacts
	due  time.Time // of step_retrying: when the next attempt starts
	sign string    // of signal_received
	lost string    // of workspace_lost: what the workspace held
	call string    // of model_called and tool_called, in words
}

// apply folds an event.
func (p *progress) apply(e *api.Event) change {
	var d eventData
	if err := json.Unmarshal([]byte(e.GetData()), &d); err != nil {
		return change{kind: e.GetType(), at: human.Moment(e.GetAt())} // an event of a later version: shown by its type at most
	}
	c := change{kind: e.GetType(), at: human.Moment(e.GetAt()), due: d.Due, sign: d.Signal}
	if d.Files != nil {
		c.lost = fmt.Sprintf("%d files with %s", d.Files.Files, mebibytes(d.Files.Size))
	}
	if d.Run != nil {
		p.run = *d.Run
	}
	if d.Step != nil {
		c.step = p.step(d.Step)
	}
	if d.Call != nil {
		c.call = d.Call.text(d.Model, d.Usage)
		if c.step != nil {
			c.step.call, c.step.talk = c.call, ""
		}
	}
	return c
}

// step takes over the new facts of a step instance.
func (p *progress) step(s *stepFacts) *stepFacts {
	old := p.steps[s.Path]
	if old != nil {
		s.begun, s.done, s.passes, s.log, s.call, s.talk = old.begun, old.done, old.passes, old.log, old.call, old.talk
		if s.Parameters.items == 0 {
			s.Parameters = old.Parameters
		}
	}
	p.steps[s.Path] = s
	if i := strings.LastIndexByte(s.Path, '~'); i > strings.LastIndexByte(s.Path, '/') {
		if n, err := strconv.Atoi(s.Path[i+1:]); err == nil {
			p.visits[s.Path[:i]] = max(p.visits[s.Path[:i]], n)
		}
	}
	p.ensure(s)
	loop, i, direct := p.passOf(s.Path)
	if loop == nil {
		return s
	}
	if loop.passes == nil {
		loop.passes = map[int]*pass{}
	}
	x, again := loop.passes[i], direct && old == nil && strings.HasPrefix(strings.TrimPrefix(s.Path, passPath(loop.Path, i)+"/"+s.ID), "~")
	if x == nil {
		x = &pass{}
		loop.passes[i] = x
		loop.begun = max(loop.begun, i+1)
		if again {
			x.over = p.passSize(loop)
		}
	}
	if again {
		if x.over >= p.passSize(loop) { // the jump back came from the last step of a pass that seemed over
			loop.done--
		}
		x.over--
	}
	x.failed = x.failed || s.Status == "FAILED"
	if direct && s.final() && (old == nil || !old.final()) {
		x.over++
		if x.over >= p.passSize(loop) {
			loop.done++
			p.forget(loop, i, x)
		}
	}
	return s
}

// passSize is how many steps of its own a pass of a loop has.
func (p *progress) passSize(loop *stepFacts) int {
	if node := p.plan[planKey(loop.Path)]; node != nil {
		return max(len(node.body), 1)
	}
	return math.MaxInt
}

// ensure makes a node for a step that the drawing of the plan did not name.
func (p *progress) ensure(s *stepFacts) {
	key := planKey(s.Path)
	if p.plan[key] != nil || strings.HasSuffix(key, "[]") {
		return
	}
	node := &planNode{id: s.ID, kind: s.Kind}
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		node.parent = p.plan[key[:i]]
	}
	p.plan[key] = node
	if node.parent == nil {
		p.roots = append(p.roots, node)
	} else {
		node.parent.body = append(node.parent.body, node)
	}
}

// forget drops what is not shown any more of a pass that is over, so that a
// long loop does not fill the memory.
func (p *progress) forget(loop *stepFacts, i int, x *pass) {
	if x.failed {
		return
	}
	delete(loop.passes, i)
	prefix := passPath(loop.Path, i)
	if node := p.plan[planKey(loop.Path)]; node != nil {
		p.drop(node.body, prefix)
	}
}

func (p *progress) drop(body []*planNode, prefix string) {
	delete(p.steps, prefix) // of a loop with one step
	for _, n := range body {
		path := prefix + "/" + n.id
		s := p.steps[path]
		delete(p.steps, path)
		for v := p.visits[path]; v > 1; v-- {
			delete(p.steps, visitPath(path, v))
		}
		delete(p.visits, path)
		switch {
		case n.choice():
			p.drop(n.body, prefix)
		case !n.loop():
			p.drop(n.body, path)
		case n.loop() && s != nil:
			for i := range s.passes {
				p.drop(n.body, passPath(path, i))
			}
		}
	}
}

func visitPath(path string, n int) string { return path + "~" + strconv.Itoa(n) }

func passPath(loop string, i int) string { return loop + "[" + strconv.Itoa(i) + "]" }

// passOf finds the innermost loop around a step instance, the pass, and
// whether the step stands in its body itself rather than in a choice there.
func (p *progress) passOf(path string) (loop *stepFacts, i int, direct bool) {
	end := strings.LastIndexByte(path, ']')
	if end < 0 {
		return nil, 0, false
	}
	begin := strings.LastIndexByte(path[:end], '[')
	if begin < 0 {
		return nil, 0, false
	}
	loop = p.steps[path[:begin]]
	i, err := strconv.Atoi(path[begin+1 : end])
	if loop == nil || err != nil {
		return nil, 0, false
	}
	node := p.plan[planKey(path)]
	return loop, i, node == nil || node.parent == nil || node.parent.loop()
}

// planKey is an instance's path without the numbers of passes and visits. The
// only step of a loop's body, which has no id, ends with [].
func planKey(path string) string {
	if !strings.ContainsAny(path, "[~") {
		return path
	}
	var b strings.Builder
	parts := strings.Split(path, "/")
	for n, part := range parts {
		if n > 0 {
			b.WriteByte('/')
		}
		name := part
		if i := strings.IndexAny(part, "[~"); i >= 0 {
			name = part[:i]
		}
		b.WriteString(name)
		if n == len(parts)-1 && strings.HasSuffix(part, "]") {
			b.WriteString("[]")
		}
	}
	return b.String()
}

func (s *stepFacts) final() bool {
	switch s.Status {
	case "COMPLETED", "FAILED", "SKIPPED", "CANCELLED":
		return true
	}
	return false
}

// lasted is how long the step has taken so far.
func (s *stepFacts) lasted(now time.Time) time.Duration {
	if s.StartedAt == nil {
		return -1
	}
	if s.FinishedAt != nil {
		now = *s.FinishedAt
	}
	return now.Sub(*s.StartedAt)
}

// count is the progress of a loop, as in 12/20, or empty.
func (s *stepFacts) count() string {
	switch {
	case s.Parameters.items > 0:
		return strconv.Itoa(s.done) + "/" + strconv.Itoa(s.Parameters.items)
	case loops(s.Kind) && s.begun > 0 && s.final():
		return plural(s.begun, "pass")
	case loops(s.Kind) && s.begun > 0:
		return "pass " + strconv.Itoa(s.begun)
	}
	return ""
}
