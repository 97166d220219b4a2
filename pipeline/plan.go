package pipeline

import "time"

// PlanFormat is the version of Plan's encoding. A stored plan of another
// format is compiled again from its source.
const PlanFormat = 1

// Pos is a place in the pipeline's source, from 1; columns in code points.
type Pos struct {
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// Plan is a compiled pipeline: data only, pinned to its runs by digest, so
// that neither an upgrade nor an edit can change a run that has begun. It
// survives a round trip through JSON unchanged.
type Plan struct {
	Format      int      `json:"format"`
	File        string   `json:"file,omitempty"` // the source's name in messages
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Description string   `json:"description,omitempty"`
	Inputs      []Input  `json:"inputs,omitempty"`
	Inferred    bool     `json:"inferred,omitempty"` // Inputs were inferred from use
	Settings    Settings `json:"settings"`
	Vars        []Entry  `json:"vars,omitempty"`
	Secrets     []string `json:"secrets,omitempty"`
	Root        Body     `json:"root"`
	Finally     Body     `json:"finally"`
	Outputs     []Entry  `json:"outputs,omitempty"`
	HasOutputs  bool     `json:"has_outputs,omitempty"` // an outputs block stands in the source
	State       []string `json:"state,omitempty"`       // every state variable assigned anywhere, sorted
	Templates   int      `json:"templates"`             // Template.ID runs from 0 to Templates-1
}

// Input is a declared or inferred input.
type Input struct {
	Name        string `json:"name"`
	Type        Type   `json:"type"`
	Required    bool   `json:"required,omitempty"`
	Default     any    `json:"default,omitempty"`
	Description string `json:"description,omitempty"`
	Pos         Pos    `json:"pos,omitzero"`
}

// Type is a type of the language, section 4 of the reference.
type Type struct {
	Kind        string     `json:"kind"` // string integer number boolean enum path list map any file secret duration
	Optional    bool       `json:"optional,omitempty"`
	Values      []any      `json:"values,omitempty"`     // of enum
	Under       string     `json:"under,omitempty"`      // of path
	MustExist   bool       `json:"must_exist,omitempty"` // of path
	Items       *Type      `json:"items,omitempty"`      // of list
	Properties  []Property `json:"properties,omitempty"` // of map
	Additional  bool       `json:"additional,omitempty"` // of map: other keys may stand in it
	Description string     `json:"description,omitempty"`
}

// Property is a named, typed member: of a map, or a parameter or result of an action.
type Property struct {
	Name     string `json:"name"`
	Type     Type   `json:"type"`
	Required bool   `json:"required,omitempty"`
	Default  any    `json:"default,omitempty"`
	Doc      string `json:"doc,omitempty"`
}

// Settings of a pipeline; zero values mean the defaults named here.
type Settings struct {
	Timeout     time.Duration `json:"timeout,omitempty"`      // of the whole run; 0: none
	MaxParallel int           `json:"max_parallel,omitempty"` // steps of the run at once; 0: the server's limit
	OnError     string        `json:"on_error,omitempty"`     // stop (default), abort, continue
	Retry       *Retry        `json:"retry,omitempty"`        // of steps whose effect allows repetition
	Checkpoint  string        `json:"checkpoint,omitempty"`   // adaptive (default), fixed, none
}

// Body is a list of steps with its edges. Steps of a sequence depend on their
// predecessor; a graph's edges are declared or inferred. Either way Deps says it all.
type Body struct {
	Order string     `json:"order,omitempty"` // graph or sequence
	Steps []*StepDef `json:"steps,omitempty"`
}

// Kind is what a step does.
type Kind string

// The kinds of step.
const (
	KindAction  Kind = "action"
	KindCommand Kind = "command" // argv, or a shell line
	KindSet     Kind = "set"
	KindFor     Kind = "for"
	KindWhile   Kind = "while"
	KindIf      Kind = "if"
)

// Block reports whether steps of this kind hold other steps.
func (k Kind) Block() bool { return k == KindFor || k == KindWhile || k == KindIf }

// Effect says what a crash may do to a step.
type Effect string

// The effects, from the most to the least repeatable.
const (
	EffectPure        Effect = "pure"          // computes only; may run ahead of the log
	EffectIdempotent  Effect = "idempotent"    // repeating it changes nothing
	EffectAtLeastOnce Effect = "at_least_once" // may repeat after a crash, with the same idempotency key
	EffectAtMostOnce  Effect = "at_most_once"  // never repeats; a crash leaves a question
)

// StepDef is a step of the plan. Exactly the fields of its Kind are set.
type StepDef struct {
	ID          string        `json:"id"`
	Name        string        `json:"name,omitempty"`
	Description string        `json:"description,omitempty"`
	Kind        Kind          `json:"kind"`
	Pos         Pos           `json:"pos"`
	Deps        []Dep         `json:"deps,omitempty"`
	Condition   *Template     `json:"condition,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"` // of one attempt; 0: none
	Retry       *Retry        `json:"retry,omitempty"`
	OnFailure   string        `json:"on_failure,omitempty"` // fail (default), continue, skip, or a step id
	State       []Entry       `json:"state,omitempty"`
	Effect      Effect        `json:"effect,omitempty"` // empty: the action decides by its parameters

	// Leaves.
	Action     string   `json:"action,omitempty"`     // catalogue key, as in "http" or "filesystem.write"
	Parameters []Entry  `json:"parameters,omitempty"` // of actions
	Command    []Field  `json:"command,omitempty"`    // argv
	Run        *Field   `json:"run,omitempty"`        // a line for the shell
	Env        []Entry  `json:"env,omitempty"`
	Secrets    []string `json:"secrets,omitempty"`
	Capture    string   `json:"capture,omitempty"` // text (default), lines, json
	Set        []Entry  `json:"set,omitempty"`

	// Blocks.
	Loop     *Loop    `json:"loop,omitempty"`     // of for and while
	Branches []Branch `json:"branches,omitempty"` // of if
}

// Dep is an edge within a body: the step at index On finishes first.
type Dep struct {
	On    int    `json:"on"`
	Cause string `json:"cause"` // declared, reference, state, sequence
	Pos   Pos    `json:"pos,omitzero"`
}

// Retry says when a failed attempt is repeated.
type Retry struct {
	MaxAttempts   int           `json:"max_attempts"`
	Backoff       string        `json:"backoff,omitempty"` // exponential (default), linear, constant
	Initial       time.Duration `json:"initial,omitempty"` // default 1s
	Max           time.Duration `json:"max,omitempty"`     // default 60s
	Jitter        string        `json:"jitter,omitempty"`  // full (default), none
	On            []string      `json:"on,omitempty"`      // categories, "failed" or exit codes; default: those that can be retried
	TimeoutFactor float64       `json:"timeout_factor,omitempty"`
	Reported      bool          `json:"reported,omitempty"` // a step that reports failure is retried too
}

// Loop is the body of for and while with what repeats it.
type Loop struct {
	Items       *Field    `json:"items,omitempty"`    // of for
	Variable    string    `json:"variable,omitempty"` // of for; default item
	Parallel    int       `json:"parallel,omitempty"` // passes at once; 0 and 1: one after the other; -1: as many as the run may
	Collect     *Template `json:"collect,omitempty"`
	OnItemError string    `json:"on_item_error,omitempty"` // fail (default), continue
	Condition   *Template `json:"condition,omitempty"`     // of while
	Max         int       `json:"max,omitempty"`           // of while
	Single      bool      `json:"single,omitempty"`        // the body is one step without an id of its own
	Body        Body      `json:"body"`
}

// Branch is one arm of a choice; the first whose condition holds is taken.
type Branch struct {
	Condition *Template `json:"condition,omitempty"` // nil: else
	Body      Body      `json:"body"`
}

// Template is a text with placeholders, or a condition.
type Template struct {
	ID        int    `json:"id"`
	Src       string `json:"src"`
	Pos       Pos    `json:"pos"`                 // of the value in the source
	Condition bool   `json:"condition,omitempty"` // a bare expression
	Impure    bool   `json:"impure,omitempty"`    // reads files or the clock
}

// Field is a value of the document that may hold templates. Exactly one of
// its members is set; all empty means Const null.
type Field struct {
	Const    any       `json:"const,omitempty"`
	Template *Template `json:"template,omitempty"`
	List     []Field   `json:"list,omitempty"`
	Map      []Entry   `json:"map,omitempty"`
	Empty    string    `json:"empty,omitempty"` // "list" or "map": an empty one
}

// Entry is a named Field; the order is the source's.
type Entry struct {
	Name  string `json:"name"`
	Value Field  `json:"value"`
	Pos   Pos    `json:"pos,omitzero"`
}

// ActionSpec is what the compiler and its readers know of an action.
type ActionSpec struct {
	Key     string     `json:"key"`            // "http", "filesystem.write"
	Tool    string     `json:"tool,omitempty"` // filesystem
	Name    string     `json:"name"`           // write
	Bare    bool       `json:"bare,omitempty"` // may be named without its tool
	Doc     string     `json:"doc"`
	Params  []Property `json:"params"`
	Open    bool       `json:"open,omitempty"` // takes parameters beyond Params
	Returns Type       `json:"returns"`        // a map with known properties, or any
	Effect  Effect     `json:"effect"`         // empty: depends on the parameters
	Model   bool       `json:"model,omitempty"`
}

// Catalog is the actions that a compiler may resolve, by key. It is data; its
// Digest names the exact set.
type Catalog struct {
	Actions map[string]*ActionSpec
	Digest  Digest
}

// Find resolves an action by its tool (may be empty) and name.
func (c Catalog) Find(tool, name string) *ActionSpec {
	if tool != "" {
		return c.Actions[tool+"."+name]
	}
	if a := c.Actions[name]; a != nil && a.Tool == "" {
		return a
	}
	for _, a := range c.Actions {
		if a.Bare && a.Name == name {
			return a
		}
	}
	return nil
}
