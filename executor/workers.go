package executor

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// crew is the workers that are connected to this process, the attempts that they
// carry out for it, and the steps that wait for one of them.
type crew struct {
	ex *Executor

	mu      sync.Mutex
	hands   map[string]*hand    // by name
	errands map[string]*errand  // by token: attempts of runs that this process owns
	relayed map[string]*relay   // by token: attempts of runs that another one owns
	groups  map[string]*group   // by what they ask for
	order   []*group            // that have somebody in line, in fair turns
	known   map[string]*Action  // that workers have brought, since the start
	catalog *pipeline.Catalog   // with these; nil: to be made
	dormant map[string]*dormant // by what they ask for: runs that were parked meanwhile
	scanned bool                // the store was asked for those of earlier times
}

// hand is a connected worker.
type hand struct {
	info      pipeline.Worker
	session   *session // nil: its stream has broken
	gone      *time.Timer
	reserved  int // seats that were granted and are not filled yet
	needs     pipeline.Resources
	errands   map[string]*errand
	connected time.Time
	heard     time.Time
}

// seat is the right to give one attempt to a worker.
type seat struct {
	hand *hand
	need *pipeline.Resources
}

// want is a step that waits for a worker.
type want struct {
	run  *runState
	task pipeline.Task
}

// group is the steps that ask for the same of their worker. Each run stands in
// its line once, so that none starves the others.
type group struct {
	key    string
	labels []string
	action string
	need   *pipeline.Resources
	runs   []*runState
	wants  map[*runState][]want
	queued bool // in crew.order
}

func newCrew(e *Executor) *crew {
	return &crew{
		ex: e, hands: map[string]*hand{}, errands: map[string]*errand{}, relayed: map[string]*relay{},
		groups: map[string]*group{}, known: map[string]*Action{}, dormant: map[string]*dormant{},
	}
}

// abroad reports whether a step is for a worker: this process lacks one of its
// labels, or its action.
func (e *Executor) abroad(def *pipeline.StepDef) bool {
	if e.cfg.Selective { // nobody can connect to it
		return false
	}
	for _, label := range def.Worker {
		if !slices.Contains(e.cfg.Labels, label) {
			return true
		}
	}
	return def.Kind == pipeline.KindAction && def.Action != "" && e.actions[def.Action] == nil && !remote(def)
}

// carries is the action by which a worker is told to carry out a step; empty:
// workers cannot.
func carries(def *pipeline.StepDef) string {
	switch {
	case def.Kind == pipeline.KindAction:
		return def.Action
	case def.Kind == pipeline.KindSkill && def.Skill.Command == nil && def.Skill.Run == "":
		return ""
	}
	return pipeline.CommandAction
}

// needOf is what a step asks for of its worker, as a key.
func needOf(def *pipeline.StepDef) string {
	key := carries(def) + "\x00" + strings.Join(def.Worker, "\x00")
	if n := def.Resources; n != nil {
		key += "\x00" + string(pipeline.EncodeValue([]any{n.CPU, n.MemoryGB, n.GPU}))
	}
	return key
}

// stand puts a step into the line for a worker. The answer is runState.seated.
func (c *crew) stand(w want) {
	def := w.task.Def
	key := needOf(def)
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[key]
	if g == nil {
		g = &group{key: key, labels: def.Worker, action: carries(def), need: def.Resources, wants: map[*runState][]want{}}
		c.groups[key] = g
	}
	if len(g.wants[w.run]) == 0 {
		g.runs = append(g.runs, w.run)
	}
	g.wants[w.run] = append(g.wants[w.run], w)
	if !g.queued {
		g.queued = true
		c.order = append(c.order, g)
	}
	c.serve()
}

// leave takes a run that is let go out of all lines.
func (c *crew) leave(r *runState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.order {
		if len(g.wants[r]) > 0 {
			delete(g.wants, r)
			g.runs = slices.DeleteFunc(g.runs, func(x *runState) bool { return x == r })
		}
	}
	c.tidy()
}

// serve grants seats as far as what is free reaches, to the groups in turn.
func (c *crew) serve() {
	for granted := true; granted; {
		granted = false
		for _, g := range c.order {
			if len(g.runs) == 0 {
				continue
			}
			h := c.pick(g)
			if h == nil {
				continue
			}
			granted = true
			c.grant(g, h)
		}
	}
	c.tidy()
	c.rouse()
}

func (c *crew) tidy() {
	c.order = slices.DeleteFunc(c.order, func(g *group) bool {
		if len(g.runs) > 0 {
			return false
		}
		delete(c.groups, g.key)
		return true
	})
}

// grant gives the next step of a group a seat at a worker.
func (c *crew) grant(g *group, h *hand) {
	r := g.runs[0]
	g.runs = g.runs[1:]
	w := g.wants[r][0]
	if rest := g.wants[r][1:]; len(rest) > 0 {
		g.wants[r] = rest
		g.runs = append(g.runs, r)
	} else {
		delete(g.wants, r)
	}
	h.reserved++
	h.take(g.need, 1)
	s := seat{hand: h, need: g.need}
	r.lane.post(func() { r.do(func() { r.seated(w.task, s) }) })
}

// free gives a seat back that was not used.
func (c *crew) free(s seat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.hand.reserved--
	s.hand.take(s.need, -1)
	c.serve()
}

func (h *hand) take(need *pipeline.Resources, n float64) {
	if need != nil {
		h.needs.CPU += n * need.CPU
		h.needs.MemoryGB += n * need.MemoryGB
		h.needs.GPU += n * need.GPU
	}
}

// taken is how many slots of a worker are taken, as far as this process knows.
func (h *hand) taken() int { return max(len(h.errands)+h.reserved, int(h.info.Busy)) }

// suits reports whether a worker can carry out such steps at all.
func (h *hand) suits(labels []string, action string) bool {
	for _, label := range labels {
		if !slices.Contains(h.info.Labels, label) {
			return false
		}
	}
	return action != "" && (slices.Contains(h.info.Runs, action) ||
		slices.ContainsFunc(h.info.Actions, func(a pipeline.ActionSpec) bool { return a.Key == action }))
}

// room reports whether a worker has what a step takes, now or, where all is set,
// when it has nothing else to do.
func (h *hand) room(need *pipeline.Resources, all bool) bool {
	if need == nil {
		return true
	}
	fits := func(need, total, own, told float64) bool {
		used := max(own, told)
		if all {
			used = 0
		}
		return total == 0 || used+need <= total+1e-9
	}
	has, told := h.info.Resources, h.info.Used
	return fits(need.CPU, has.CPU, h.needs.CPU, told.CPU) && fits(need.MemoryGB, has.MemoryGB, h.needs.MemoryGB, told.MemoryGB) &&
		fits(need.GPU, has.GPU, h.needs.GPU, told.GPU)
}

// open reports whether a worker can take such a step now.
func (h *hand) open(labels []string, action string, need *pipeline.Resources) bool {
	return h.session != nil && !h.info.Draining && h.taken() < int(h.info.Slots) && h.suits(labels, action) && h.room(need, false)
}

// pick is the least loaded worker that can take a step of the group now, or nil.
func (c *crew) pick(g *group) *hand {
	var best *hand
	for _, h := range c.hands {
		if !h.open(g.labels, g.action, g.need) {
			continue
		}
		if best == nil || lighter(h, best) {
			best = h
		}
	}
	return best
}

// lighter orders workers by how much of them is taken.
func lighter(a, b *hand) bool {
	x, y := a.taken()*int(b.info.Slots), b.taken()*int(a.info.Slots)
	return x < y || x == y && a.info.Name < b.info.Name
}

// near reports whether a worker is connected that takes such a step once it has
// room.
func (c *crew) near(def *pipeline.StepDef) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suited(def)
}

func (c *crew) suited(def *pipeline.StepDef) bool {
	for _, h := range c.hands {
		if h.session != nil && !h.info.Draining && h.suits(def.Worker, carries(def)) && h.room(def.Resources, true) {
			return true
		}
	}
	return false
}

// learn takes the actions that a worker brings into the catalogue. The newest
// description of an action counts. crew.mu is held.
func (c *crew) learn(list []pipeline.ActionSpec) {
	for i := range list {
		a := broughtAction(list[i])
		c.known[list[i].Key] = &a
		c.catalog = nil
	}
}

// brought is an action that workers bring. One that this process has never heard
// of takes and gives anything: whoever has compiled the plan knew it.
func (c *crew) brought(key string) *Action {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.known[key]; a != nil {
		return a
	}
	a := broughtAction(pipeline.ActionSpec{Key: key, Name: key, Open: true, Returns: pipeline.Type{Kind: "any"}})
	return &a
}

// extended is the catalogue with what workers have brought.
func (c *crew) extended() pipeline.Catalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.catalog == nil {
		cat := c.ex.catalog
		cat.Actions = maps.Clone(cat.Actions)
		for key, a := range c.known {
			cat.Actions[key] = &a.Spec
		}
		digest, err := catalogDigest(cat)
		if err != nil {
			c.ex.log.Error("actions of workers not described", "err", err)
			return c.ex.catalog
		}
		cat.Digest = digest
		c.catalog = &cat
	}
	return *c.catalog
}

// stop ends all waiting for workers.
func (c *crew) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hands {
		if h.gone != nil {
			h.gone.Stop()
		}
	}
	for _, y := range c.relayed {
		if y.gone != nil {
			y.gone.Stop()
		}
	}
}

// Workers lists the workers that are connected, or whose attempts are waited
// for, by name.
func (e *Executor) Workers() []pipeline.Worker {
	c := e.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]pipeline.Worker, 0, len(c.hands))
	for _, h := range c.hands {
		list = append(list, h.show())
	}
	slices.SortFunc(list, func(a, b pipeline.Worker) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// InLine lists steps of a run that stand in line for a worker, at most that many.
// It knows of runs that this process owns.
func (e *Executor) InLine(run pipeline.RunID, most int) []pipeline.WorkerWant {
	c := e.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []pipeline.WorkerWant
	for _, g := range c.order {
		for r, wants := range g.wants {
			if r.run.ID != run {
				continue
			}
			for i := 0; i < len(wants) && len(list) < most; i++ {
				list = append(list, pipeline.WorkerWant{Path: wants[i].task.Path, Labels: g.labels, Action: g.action})
			}
		}
	}
	return list
}

// show is a worker as people see it.
func (h *hand) show() pipeline.Worker {
	w := h.info
	w.Held = nil
	w.Busy = int32(h.taken()) //nolint:gosec // no more than it has slots, or has said
	w.ConnectedAt, w.HeardAt = h.connected, h.heard
	switch {
	case h.session == nil:
		w.Status = pipeline.WorkerLost
	case h.info.Draining:
		w.Status = pipeline.WorkerDraining
	default:
		w.Status = pipeline.WorkerConnected
	}
	for _, x := range h.errands {
		w.Attempts = append(w.Attempts, pipeline.WorkerAttempt{Run: x.order.Run, Path: x.order.Path, Attempt: x.order.Attempt, Since: x.since})
	}
	slices.SortFunc(w.Attempts, func(a, b pipeline.WorkerAttempt) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Path, b.Path))
	})
	return w
}

// DrainWorker lets a worker take nothing new; it leaves when it has finished what
// it has.
func (e *Executor) DrainWorker(name string) error {
	c := e.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hands[name]
	if h == nil || h.session == nil {
		return noWorker(name)
	}
	h.info.Draining = true
	h.session.order(pipeline.WorkerOrder{Drain: true})
	return nil
}

func noWorker(name string) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "worker_not_found", Text: "no worker called " + name + " is connected to this server"}
}
