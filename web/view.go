package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// view is what the pages know of one run: the run, and each of its step
// instances in short form, as of event number seq. It begins as a snapshot
// (views.go) and then folds events; each event carries the whole state after
// it, so folding is replacing. All pages and live feeds of a run share one
// view, and whoever reads an event first applies it for all.
//
// Everything that pages show of many steps is kept up while folding (tallies of
// nodes, passes of loops), so that drawing costs the size of the drawing and
// not the size of the run.
type view struct {
	id   string
	load chan struct{} // holds a token while somebody reads the snapshot

	mu       sync.Mutex
	run      *api.Run
	runSeq   int32
	seq      int32
	begun    bool        // the snapshot's seq is known
	complete bool        // the snapshot has been read to its end
	pages    []stepsFrom // of the list of steps, as far as it was read
	steps    []*instance
	index    map[string]int32
	touched  int32                  // seq at which an instance last changed
	waited   int32                  // seq at which what the run waits for last changed
	publish  int32                  // seq at which a step last published
	waits    map[int32]*api.Waiting // by the index of the instance
	tally    tally
	usage    usage
	nodes    map[string]*node
	blocks   map[string]*block // by the instance path of the block
	graph    *graph
	order    []int32 // steps as a tree, up to ordered of them
}

// stepsFrom says how to read the list of steps from one of its places on.
type stepsFrom struct {
	first int // the index of the first step
	token string
}

// instance is a step instance in short form; full steps are read when shown.
type instance struct {
	Path    string
	Kind    string
	Action  string
	Status  api.Step_Status
	Attempt int32
	Reason  string
	Reused  bool         // its end was taken from another run
	Waiting *api.Waiting // what it waits for, while it does
	Error   string       // the first line of it
	Start   time.Time
	End     time.Time
	seq     int32 // of its last change
	node    *node
	past    bool  // a jump has led back to the step: a later visit speaks for it
	parent  int32 // index of the block instance that holds it, or -1
	pass    int32 // the pass of that block, or -1
	depth   int
	usage   usage
}

type usage struct {
	in, out  int64
	usd      float64
	unpriced int64 // calls of models whose cost nobody knows
}

func usageOf(u *api.Usage) usage {
	return usage{int64(u.GetInputTokens()), int64(u.GetOutputTokens()), u.GetCostUsd(), int64(u.GetUnpricedCalls())}
}

func (u *usage) add(o usage, sign int64) {
	u.in += sign * o.in
	u.out += sign * o.out
	u.usd += float64(sign) * o.usd
	u.unpriced += sign * o.unpriced
}

// tally counts step instances by status.
type tally [8]int32

func (t *tally) done() int32 {
	return t[api.Step_COMPLETED] + t[api.Step_FAILED] + t[api.Step_SKIPPED] + t[api.Step_CANCELLED]
}

// without is the tally less another.
func (t *tally) without(o *tally) tally {
	out := *t
	for i := range o {
		out[i] -= o[i]
	}
	return out
}

func (t *tally) all() int32 {
	var n int32
	for _, c := range t {
		n += c
	}
	return n
}

// state is the one status that speaks for all instances: what needs a look first.
func (t *tally) state() state {
	for _, s := range []api.Step_Status{
		api.Step_FAILED, api.Step_RUNNING, api.Step_WAITING, api.Step_PENDING,
		api.Step_CANCELLED, api.Step_COMPLETED, api.Step_SKIPPED,
	} {
		if t[s] > 0 {
			return stepState(s)
		}
	}
	return "pending"
}

// node is what became of one step of the plan over all its instances.
type node struct {
	id     string
	drawn  *api.GraphNode // nil: the drawing does not show it
	last   string         // path of the instance that began last
	tally  tally
	past   tally // of these, the visits that later ones have replaced
	items  int32 // of for loops: how many passes there will be, as far as known
	begun  int32 // passes, of loops
	passed int32 // passes whose steps have all finished
	seq    int32 // of its last change
}

// block is one instance of a loop: how many of its direct children have
// finished in each pass. Of a step that jumps have led back to, the first visit
// counts; the pass is not over while another one goes on.
type block struct {
	node   *node
	single bool // each pass is one step without an id of its own
	done   []int32
	open   []int32 // of those, and of their later visits, how many go on
}

func newView(id string) *view {
	return &view{
		id: id, load: make(chan struct{}, 1), graph: newGraph(nil),
		index: map[string]int32{}, nodes: map[string]*node{}, blocks: map[string]*block{},
		waits: map[int32]*api.Waiting{},
	}
}

// place takes a path apart: the plan's node, the path of the block instance
// around it ("" at the top) and the pass of that block (-1 outside loops). A
// loop over a single doing has passes that are steps themselves, as in load[2];
// they have no node in the plan, and load[] stands for one.
func place(path string) (nodeID, parent string, pass int32) {
	pass = -1
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent = path[:i]
	}
	single := strings.HasSuffix(path, "]")
	if single {
		parent = path
	}
	if j := strings.LastIndexByte(parent, '['); j >= 0 && strings.HasSuffix(parent, "]") {
		pass = number(parent[j+1 : len(parent)-1])
		parent = parent[:j]
	}
	if !strings.ContainsAny(path, "[~") {
		return path, parent, pass
	}
	var b strings.Builder
	for part := range strings.SplitSeq(path, "/") {
		if i := strings.IndexAny(part, "[~"); i >= 0 {
			part = part[:i]
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(part)
	}
	if single {
		b.WriteString("[]")
	}
	return b.String(), parent, pass
}

// holder is the node of the block around a node in a loop.
func holder(nodeID string) string {
	if id, single := strings.CutSuffix(nodeID, "[]"); single {
		return id
	}
	return nodeID[:strings.LastIndexByte(nodeID, '/')]
}

// apply folds one event. Events that the view knows already change nothing.
func (v *view) apply(e *api.Event) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e.GetSeq() <= v.seq {
		return nil
	}
	run, step, items, err := states(e)
	if err != nil {
		return err
	}
	v.seq = e.GetSeq()
	switch e.GetType() {
	case "approval_decided":
		v.waited = v.seq
	}
	if run != nil {
		v.run, v.runSeq = run, v.seq
	}
	if step != nil {
		v.put(step, v.seq)
		v.steps[v.index[step.GetPath()]].node.items += items
	}
	return nil
}

// states reads the whole run or step that an event carries, and how many items
// it gives a loop.
func states(e *api.Event) (*api.Run, *api.Step, int32, error) {
	var data struct {
		Run   json.RawMessage   `json:"run"`
		Step  json.RawMessage   `json:"step"`
		Items []json.RawMessage `json:"items"`
	}
	if e.GetData() == "" {
		return nil, nil, 0, nil
	}
	if err := json.Unmarshal([]byte(e.GetData()), &data); err != nil {
		return nil, nil, 0, fmt.Errorf("read event %d: %w", e.GetSeq(), err)
	}
	var run *api.Run
	var step *api.Step
	if len(data.Run) > 0 && data.Run[0] == '{' {
		run = &api.Run{}
		if err := wire.Unmarshal(data.Run, run); err != nil {
			return nil, nil, 0, fmt.Errorf("read the run in event %d: %w", e.GetSeq(), err)
		}
	}
	if len(data.Step) > 0 && data.Step[0] == '{' {
		step = &api.Step{}
		if err := wire.Unmarshal(data.Step, step); err != nil {
			return nil, nil, 0, fmt.Errorf("read the step in event %d: %w", e.GetSeq(), err)
		}
	}
	return run, step, int32(len(data.Items)), nil
}

// put adds or replaces a step instance. The caller holds mu.
func (v *view) put(s *api.Step, seq int32) {
	i, known := v.index[s.GetPath()]
	if !known {
		i = v.insert(s.GetPath())
	}
	in := v.steps[i]
	// The snapshot may be ahead of the events that follow it: what has
	// finished does not run again under the same attempt.
	if known && finalStep(in.Status) && !finalStep(s.GetStatus()) && s.GetAttempt() <= in.Attempt {
		return
	}
	n := in.node
	if known {
		v.tally[in.Status]--
		n.tally[in.Status]--
		if in.past {
			n.past[in.Status]--
		}
	}
	was := known && finalStep(in.Status)
	v.usage.add(in.usage, -1)
	in.Kind, in.Action = s.GetKind(), s.GetAction()
	in.Status, in.Attempt, in.Reason, in.Reused = s.GetStatus(), s.GetAttempt(), s.GetReason(), s.GetReusedFrom() != ""
	in.Error = clip(s.GetError().GetMessage(), 200)
	in.Start, in.End = human.Moment(s.GetStartedAt()), human.Moment(s.GetFinishedAt())
	in.usage = usageOf(s.GetUsage())
	in.seq, v.touched = seq, seq
	in.Waiting = s.GetWaiting()
	if was := v.waits[i]; in.Waiting != nil {
		v.waits[i], v.waited = in.Waiting, seq
	} else if was != nil {
		delete(v.waits, i)
		v.waited = seq
	}
	if len(s.GetArtifacts()) > 0 {
		v.publish = seq
	}
	v.usage.add(in.usage, 1)
	v.tally[in.Status]++
	n.tally[in.Status]++
	if in.past {
		n.past[in.Status]++
	}
	n.seq = seq
	if in.pass >= 0 {
		v.count(in, known, was, seq)
	}
}

// insert makes room for a new instance and finds its place in the tree.
func (v *view) insert(path string) int32 {
	i := int32(len(v.steps))
	id, parent, pass := place(path)
	n := v.node(id)
	n.last = path
	in := &instance{Path: path, node: n, parent: -1, pass: pass}
	if up := v.graph.byID[n.drawn.GetParent()]; silent(up.GetKind()) {
		within := path[:strings.LastIndexByte(path, '/')+1]
		parent = within + lastPart(up.GetId())
		if last := v.node(v.graph.instance(up)).last; strings.HasPrefix(last, parent) { // its visit that goes on
			parent = last
		}
	}
	if p, ok := v.index[parent]; ok && parent != "" {
		in.parent, in.depth = p, v.steps[p].depth+1
	}
	if before, ok := v.index[visitBefore(path)]; ok {
		old := v.steps[before]
		old.past = true
		n.past[old.Status]++
	}
	v.steps = append(v.steps, in)
	v.index[path] = i
	return i
}

// visitBefore is the path of the visit before a later one, or empty: draft~2 of
// draft~3, and draft of draft~2.
func visitBefore(path string) string {
	cut := strings.LastIndexByte(path, '~')
	if cut < strings.LastIndexByte(path, '/') || cut < 0 {
		return ""
	}
	if v := number(path[cut+1:]); v > 2 {
		return path[:cut+1] + itoa(v-1)
	}
	return path[:cut]
}

// node returns what is known of a node of the plan.
func (v *view) node(id string) *node {
	n := v.nodes[id]
	if n == nil {
		id = strings.Clone(id) // else it would keep a whole answer alive
		n = &node{id: id, drawn: v.graph.byInstance[id]}
		v.nodes[id] = n
	}
	return n
}

// count keeps the passes of the loop around in, which was known or not, and had
// finished or not.
func (v *view) count(in *instance, known, was bool, seq int32) {
	id, parent, _ := place(in.Path)
	b := v.blocks[parent]
	if b == nil {
		b = &block{node: v.node(holder(id)), single: strings.HasSuffix(id, "[]")}
		v.blocks[strings.Clone(parent)] = b
	}
	for int32(len(b.done)) <= in.pass {
		b.done, b.open = append(b.done, 0), append(b.open, 0)
		b.node.begun++
		b.node.seq = seq
	}
	is := finalStep(in.Status)
	if up := b.node.drawn; !b.single && in.node.drawn.GetParent() != up.GetId() {
		return // in an arm of a choice: the choice itself counts
	}
	body := v.body(b)
	over := func() bool { return body > 0 && b.done[in.pass] >= body && b.open[in.pass] == 0 }
	before := over()
	open, ended := one(!is)-one(known && !was), one(is)-one(was)
	b.open[in.pass] += open
	if !strings.Contains(lastPart(in.Path), "~") {
		b.done[in.pass] += ended
	}
	after := over()
	if before != after {
		if after {
			b.node.passed++
		} else {
			b.node.passed--
		}
		b.node.seq = seq
	}
}

func one(is bool) int32 {
	if is {
		return 1
	}
	return 0
}

// body is how many steps one pass of a block holds; 0: nobody knows.
func (v *view) body(b *block) int32 {
	if b.single {
		return 1
	}
	return v.graph.children[b.node.drawn.GetId()]
}

// tree returns the instances in the order of the plan's blocks: each block
// before its passes, each pass in the order in which its steps began.
func (v *view) tree() []int32 {
	if len(v.order) == len(v.steps) {
		return v.order
	}
	children := make(map[int32][]int32)
	for i, in := range v.steps {
		children[in.parent] = append(children[in.parent], int32(i))
	}
	out := make([]int32, 0, len(v.steps))
	var walk func(of int32)
	walk = func(of int32) {
		list := children[of]
		byPass := func(a, b int32) int { return int(v.steps[a].pass - v.steps[b].pass) }
		if !slices.IsSortedFunc(list, byPass) {
			slices.SortStableFunc(list, byPass) // passes that ran side by side
		}
		for _, i := range list {
			out = append(out, i)
			walk(i)
		}
	}
	walk(-1)
	v.order = out
	return out
}

// change says which parts of a run events have touched.
type change struct {
	any       bool
	run       bool // its own state
	steps     bool // some instance
	waits     bool // what it waits for
	published bool // an artifact
	drawer    bool // the instance in the drawer
}

// since tells what has changed after event seq; step is the path in the drawer.
func (v *view) since(seq int32, step string) change {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := change{any: v.seq > seq, run: v.runSeq > seq, steps: v.touched > seq, waits: v.waited > seq, published: v.publish > seq}
	if i, ok := v.index[step]; ok && step != "" {
		c.drawer = v.steps[i].seq > seq
	}
	return c
}

// whole reports whether the snapshot has been read to its end.
func (v *view) whole() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.complete
}
