package spec

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// compiler turns one pipeline into a unit of the plan. It first reads the whole tree, and
// notes every template as a use; then it resolves the uses and derives edges.
type compiler struct {
	text      *text
	found     *findings
	cat       *catalog
	whole     *program
	dir       string // of the source, within the bundle
	title     string // of a pipeline that stands in a step
	outside   *step  // that step, of the pipeline around it
	depth     int    // how many pipelines are around this one
	height    int    // how deep calls are nested in it, itself included
	templates int    // of the plan so far
	parsed    map[parsed]*expr.Template
	suggested int // names compared so far, see suggest

	plan      *pipeline.Plan // its unit, with its own secrets
	imports   map[string]*imported
	hasInputs bool // the source has an inputs block
	inputs    map[string]*input
	vars      map[string]*def // in the order of the plan
	secrets   map[string]bool
	state     map[string]*def // first assignment
	root      *body
	finally   *body
	steps     map[string][]*step // by id, in every body
	docUses   []*use             // of vars and outputs
	autos     autos
	agents    map[string]*agent
	models    map[string]*model
	servers   map[string]*server
	sessions  []sessionUse
	actions   map[string]*ownAction
	artifacts map[string]*artifact
	consumers []consumer
	triggers  triggers
	prompts   map[string]*text // prompt files by their path in the bundle
}

// input is a declared or inferred input.
type input struct {
	def  pipeline.Input
	at   span
	used bool
}

// def is where a name is defined.
type def struct {
	at    span
	index int // among vars
}

// step is a step of the document, with what its plan does not say.
type step struct {
	def      *pipeline.StepDef
	body     *body // that holds it
	index    int   // in body
	id       *node // nil if it has none
	at       span  // of its id, or its beginning
	declared []*node
	uses     []*use
	bodies   []*body        // that it holds
	returns  *pipeline.Type // of a leaf's output, nil: unknown
	spec     *pipeline.ActionSpec
	inflow   []edge          // from this step, or what it holds, to producers of artifacts that it consumes
	refs     []edge          // from this step, or what it holds, to steps of the same body
	access   map[string]*pos // of state variables, by this step or what it holds
	writes   []string        // the state variables that it sets,
	writeAt  []span          // and where
	variable span            // of a for: where its variable is named
	jumps    []jump          // where it goes on
	visits   span            // of its max_visits
	judge    bool            // it judges the candidates around it
	on       *use            // of a match: the value, where it is a template
	cases    *pair           // of a match
	files    []output        // that it is known to write
}

// pos is how and where a state variable is accessed.
type pos struct {
	write bool
	off   int
}

// output is a file that a step is known to write.
type output struct {
	path string
	at   span
}

// edge is a dependency on the step at index on of the same body.
type edge struct {
	on  int
	off int // of what causes it
}

// body is a list of steps.
type body struct {
	steps   []*step
	byID    map[string]*step
	owner   *step // nil: the root, or finally
	outside *step // of the root of a pipeline that stands in a step: that step
	graph   bool
	loop    bool    // the body of a for or while
	final   bool    // finally
	apart   string  // its steps stand apart, none waits for another: parallel or compete
	label   *string // of a case of match: its value; nil: another body, or default
}

// path is the ids of the blocks around a step and its own.
func (s *step) path() string {
	if s == nil {
		return ""
	}
	outer := ""
	if s.body != nil {
		outer = s.body.owner.path()
		if s.body.owner == nil {
			outer = s.body.outside.path()
		}
	}
	if s.def.ID == "" {
		return outer
	}
	if outer == "" {
		return s.def.ID
	}
	return outer + "/" + s.def.ID
}

// parent is the block around a step, or nil.
func (s *step) parent() *step { return s.body.owner }

// where is the place in the document that a message names beside its position.
type where struct {
	step *step
	path string
}

func (w where) in(name string) where {
	if w.path == "" {
		return where{w.step, name}
	}
	if strings.HasPrefix(name, "[") {
		return where{w.step, w.path + name}
	}
	return where{w.step, w.path + "." + name}
}

// usage says when a template is evaluated, and so what it may name.
type usage uint8

const (
	useField     usage = iota // before the step does anything
	useState                  // after its success
	useTest                   // the condition of a while: in the loop, before a pass
	useCollect                // after a pass, within it
	useExhausted              // after the passes of a repeat that did not come to its end
	useAgent                  // of an agent's command: as useField, with the names model and session
	useTool                   // of an agent's tool: as useField, with the arguments of the call
	useGate                   // whether such a call needs people: as useField, with args
	useVars                   // when the run begins
	useServer                 // of an MCP server: what is the same for the whole run
	useOutputs                // at its end
)

// use is a template at its place.
type use struct {
	expr  *expr.Template
	node  *node
	where where
	when  usage
	name  string         // of the var or output
	args  *pipeline.Type // of useTool and useGate: what the tool is given; nil: not known
	open  bool           // secrets may be named
	to    func(int) int
	tags  *replaced // nil: the text has no <AUTO> tags
}

// at is the place in the source of a byte range of the template's text.
func (c *compiler) at(u *use, off, end int) span {
	if u.to == nil {
		u.to = c.text.source(u.node)
	}
	from := u.to(off)
	if end <= off {
		return span{from, from + 1}
	}
	return span{from, u.to(end-1) + 1}
}

func newCompiler(t *text, found *findings, cat *catalog, whole *program) *compiler {
	return &compiler{
		text: t, found: found, cat: cat, whole: whole, height: 1, parsed: map[parsed]*expr.Template{},
		inputs: map[string]*input{}, vars: map[string]*def{}, secrets: map[string]bool{}, state: map[string]*def{},
		steps: map[string][]*step{},
	}
}

// placed adds to a fault where it stands in the document.
func (c *compiler) placed(x fault, w where) fault {
	x.step, x.path = w.step.path(), w.path
	if w.step == nil {
		x.step = c.outside.path()
	}
	return x
}

func (c *compiler) error(x fault, w where) { c.found.error(c.placed(x, w)) }
func (c *compiler) warn(x fault, w where)  { c.found.warn(c.placed(x, w)) }

// quoteList joins names for messages.
func quoteList(names []string) string { return strings.Join(names, ", ") }
