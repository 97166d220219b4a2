package pipeline

import (
	"path"
	"time"
)

// PlanFormat is the version of Plan's encoding. A stored plan of another
// format is compiled again from its source.
const PlanFormat = 3

// Pos is a place in the pipeline's source, from 1; columns in code points.
type Pos struct {
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// Plan is a compiled pipeline with all that it calls: data only, pinned to its
// runs by digest, so that neither an upgrade nor an edit can change a run that
// has begun. It survives a round trip through JSON unchanged.
type Plan struct {
	Format  int      `json:"format"`
	Unit             // the pipeline itself
	Units   []*Unit  `json:"units,omitempty"`   // pipelines that it calls, named by Call.Unit
	Secrets []string `json:"secrets,omitempty"` // that its steps may ask for
	Bundle  Digest   `json:"bundle,omitempty"`  // of the files that travel with it; empty: none
	On      *On      `json:"on,omitempty"`      // what starts its runs, once it is registered
	// Templates is how many there are in all units: Template.ID runs from 0 to
	// Templates-1.
	Templates int `json:"templates"`
}

// Unit is one pipeline: the one that is run, or one that it calls. Names in its
// templates mean its own inputs, vars, state and steps.
type Unit struct {
	File        string       `json:"file,omitempty"` // the source's name in messages
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Version     string       `json:"version"`
	Description string       `json:"description,omitempty"`
	Inputs      []Input      `json:"inputs,omitempty"`
	Inferred    bool         `json:"inferred,omitempty"` // Inputs were inferred from use
	Settings    Settings     `json:"settings"`
	Vars        []Entry      `json:"vars,omitempty"`
	Artifacts   []Artifact   `json:"artifacts,omitempty"`
	Root        Body         `json:"root"`
	Finally     Body         `json:"finally"`
	Outputs     []Entry      `json:"outputs,omitempty"`
	Models      []ModelAlias `json:"models,omitempty"`
	MCPServers  []MCPServer  `json:"mcp_servers,omitempty"`
	HasOutputs  bool         `json:"has_outputs,omitempty"` // an outputs block stands in the source
	State       []string     `json:"state,omitempty"`       // every state variable assigned anywhere, sorted
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
	Kind        string     `json:"kind"` // string integer number boolean enum path list map any file secret duration union
	Optional    bool       `json:"optional,omitempty"`
	Values      []any      `json:"values,omitempty"`     // of enum
	Under       string     `json:"under,omitempty"`      // of path
	MustExist   bool       `json:"must_exist,omitempty"` // of path
	Items       *Type      `json:"items,omitempty"`      // of list
	Properties  []Property `json:"properties,omitempty"` // of map
	Additional  bool       `json:"additional,omitempty"` // of map: other keys may stand in it
	By          string     `json:"by,omitempty"`         // of union: the field that tells its cases apart
	Cases       []Case     `json:"cases,omitempty"`      // of union
	Min         *float64   `json:"min,omitempty"`        // of integer and number
	Max         *float64   `json:"max,omitempty"`        // of integer and number
	Schema      any        `json:"schema,omitempty"`     // a JSON Schema (2020-12) that the value must satisfy besides
	Description string     `json:"description,omitempty"`
}

// Case is one member of a union: a map whose field By has the value Tag.
type Case struct {
	Tag    string     `json:"tag"`
	Fields []Property `json:"fields,omitempty"`
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
	// CheckpointEvery is the number of records of checkpoint: fixed; 0: the engine chooses.
	CheckpointEvery int                  `json:"checkpoint_every,omitempty"`
	MaxTransitions  int                  `json:"max_transitions,omitempty"` // backward jumps that one body may take; 0: none is set
	UnknownActions  string               `json:"unknown_actions,omitempty"` // error (default), model
	Auto            *AutoSettings        `json:"auto,omitempty"`
	Priority        int                  `json:"priority,omitempty"` // of its runs, unless the submission says otherwise
	Queue           string               `json:"queue,omitempty"`    // of its runs, unless the submission says otherwise; empty: DefaultQueue
	Concurrency     *ConcurrencySettings `json:"concurrency,omitempty"`
	Budget          *Budget              `json:"budget,omitempty"`
	Workspace       string               `json:"workspace,omitempty"` // a folder below the run's workspace that is used in its place
}

// AutoSettings bound what <AUTO> tags may cost.
type AutoSettings struct {
	Max       int     `json:"max,omitempty"`        // tags resolved in a run; 0: no bound
	CostLimit float64 `json:"cost_limit,omitempty"` // USD; 0: no bound
	Fallback  any     `json:"fallback,omitempty"`   // for tags without one of their own; null: none
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
	KindAction   Kind = "action"
	KindSkill    Kind = "skill"
	KindCommand  Kind = "command" // argv, or a shell line
	KindAgent    Kind = "agent"
	KindSet      Kind = "set"
	KindAssert   Kind = "assert"
	KindWait     Kind = "wait"
	KindAsk      Kind = "ask" // approve is an ask too
	KindCall     Kind = "call"
	KindFor      Kind = "for"
	KindWhile    Kind = "while"
	KindRepeat   Kind = "repeat"
	KindQueue    Kind = "queue"
	KindIf       Kind = "if"
	KindMatch    Kind = "match"
	KindParallel Kind = "parallel"
	KindCompete  Kind = "compete"
)

// Block reports whether steps of this kind hold other steps. A call that is
// detached holds none: ask StepDef.Block.
func (k Kind) Block() bool {
	switch k {
	case KindFor, KindWhile, KindRepeat, KindQueue, KindIf, KindMatch, KindParallel, KindCompete, KindCall:
		return true
	}
	return false
}

// Work reports whether steps of this kind run on the worker pool and may have
// effects.
func (k Kind) Work() bool {
	switch k {
	case KindAction, KindSkill, KindCommand, KindAgent:
		return true
	}
	return false
}

// Parks reports whether steps of this kind wait for a time, an event or a person.
func (k Kind) Parks() bool { return k == KindWait || k == KindAsk }

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
	Timeout     time.Duration `json:"timeout,omitempty"` // of one attempt, or of a wait; 0: none
	Retry       *Retry        `json:"retry,omitempty"`
	OnFailure   string        `json:"on_failure,omitempty"` // fail (default), continue, skip
	OnError     []Rule        `json:"on_error,omitempty"`   // the first that matches a failure is carried out
	Routes      *Routes       `json:"routes,omitempty"`
	MaxVisits   int           `json:"max_visits,omitempty"` // how often jumps back may make it begin, the first time included; 0: settings.max_transitions
	State       []Entry       `json:"state,omitempty"`
	Effect      Effect        `json:"effect,omitempty"` // empty: the action decides by its parameters
	Cache       *Cache        `json:"cache,omitempty"`
	Critical    bool          `json:"critical,omitempty"`
	Returns     *Contract     `json:"returns,omitempty"`
	Publish     []Publish     `json:"publish,omitempty"`
	Consume     []Consume     `json:"consume,omitempty"`
	Files       *Files        `json:"files,omitempty"`
	Artifacts   []Field       `json:"artifacts,omitempty"` // patterns of files that are kept with the run
	Worker      []string      `json:"worker,omitempty"`    // labels that its worker must have
	Resources   *Resources    `json:"resources,omitempty"`
	Sandbox     *Sandbox      `json:"sandbox,omitempty"`

	// Work.
	Action     string   `json:"action,omitempty"`      // catalogue key, as in "http" or "filesystem.write"
	ActionAuto *Auto    `json:"action_auto,omitempty"` // the action is itself an <AUTO>; Action is empty
	Skill      *Skill   `json:"skill,omitempty"`
	Agent      *Agent   `json:"agent,omitempty"`
	Parameters []Entry  `json:"parameters,omitempty"` // of actions and skills
	Prompt     *Field   `json:"prompt,omitempty"`     // of agents and model actions; prompt_file's text is pinned here
	Model      *Field   `json:"model,omitempty"`
	Needs      *Needs   `json:"needs,omitempty"`   // requires_model
	Session    *Session `json:"session,omitempty"` // of agents that are programs
	Command    []Field  `json:"command,omitempty"` // argv
	Run        *Field   `json:"run,omitempty"`     // a line for the shell
	Env        []Entry  `json:"env,omitempty"`
	Secrets    []string `json:"secrets,omitempty"`
	Capture    string   `json:"capture,omitempty"` // text (default), lines, json

	// Control.
	Set    []Entry   `json:"set,omitempty"`
	Assert *Template `json:"assert,omitempty"`
	Wait   *Wait     `json:"wait,omitempty"`
	Ask    *Ask      `json:"ask,omitempty"`
	Call   *Call     `json:"call,omitempty"`

	// Blocks.
	Loop     *Loop    `json:"loop,omitempty"`     // of for, while, repeat and queue
	Match    *Field   `json:"match,omitempty"`    // what the cases of match are compared with
	Branches []Branch `json:"branches,omitempty"` // of if and match; of parallel and compete: the one body
	Compete  *Compete `json:"compete,omitempty"`
}

// Block reports whether the step holds other steps of this run.
func (d *StepDef) Block() bool { return d.Kind.Block() && (d.Call == nil || !d.Call.Detach) }

// Routes are the jumps of a step: indexes of steps of the same body. Always is
// taken where no other is.
type Routes struct {
	Success *int `json:"success,omitempty"`
	Failure *int `json:"failure,omitempty"`
	False   *int `json:"false,omitempty"` // the condition was false
	Always  *int `json:"always,omitempty"`
}

// Rule says what is done about a failure that it matches: all members of its
// match that are set must hold.
type Rule struct {
	Category []string `json:"category,omitempty"`
	Codes    []string `json:"codes,omitempty"`   // exit codes, HTTP statuses or reasons
	Pattern  string   `json:"pattern,omitempty"` // a regular expression (RE2) found in the message
	Do       string   `json:"do"`                // retry, fallback, switch_model, goto, fail; after fail, on_failure decides
	Retry    *Retry   `json:"retry,omitempty"`   // of retry
	Value    *Field   `json:"value,omitempty"`   // of fallback: the step's output
	Model    string   `json:"model,omitempty"`   // of switch_model: what the next attempts ask
	To       *int     `json:"to,omitempty"`      // of goto
	Pos      Pos      `json:"pos,omitzero"`
}

// Cache says that an equal step need not run again.
type Cache struct {
	TTL time.Duration `json:"ttl,omitempty"` // default 24 h
	Key *Field        `json:"key,omitempty"` // takes the place of the parameters in the comparison
}

// Contract is what a step promises to give.
type Contract struct {
	From string `json:"from"`           // stdout, json, files, model
	File *Field `json:"file,omitempty"` // of json: the file, relative to the workspace
	Type Type   `json:"type"`           // a map, or a union
}

// Artifact is a declared artifact.
type Artifact struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
	Pos  Pos    `json:"pos,omitzero"`
}

// Publish makes a new version of an artifact of a result's field.
type Publish struct {
	Artifact string `json:"artifact"`
	From     string `json:"from"` // a field of the step's output, dotted
	Pos      Pos    `json:"pos,omitzero"`
}

// Consume hands the newest version of an artifact to a step.
type Consume struct {
	Artifact string   `json:"artifact"`
	From     []string `json:"from,omitempty"`  // step ids; empty: anyone
	Fresh    string   `json:"fresh,omitempty"` // any (default); new: not yet consumed by this step
	As       string   `json:"as,omitempty"`    // reference (default), content, none
	Pos      Pos      `json:"pos,omitzero"`
}

// Files are what is put into a prompt.
type Files struct {
	Required []Field `json:"required,omitempty"` // patterns
	Optional []Field `json:"optional,omitempty"`
	Mode     string  `json:"mode,omitempty"`     // content (default), list
	Position string  `json:"position,omitempty"` // after (default) the prompt, or before it
}

// Resources are what one attempt takes of its worker.
type Resources struct {
	CPU      float64 `json:"cpu,omitempty"`
	MemoryGB float64 `json:"memory_gb,omitempty"`
	GPU      float64 `json:"gpu,omitempty"`
}

// Sandbox says how a step's processes are confined.
type Sandbox struct {
	Driver  string        `json:"driver,omitempty"` // empty: the first that this machine has
	Network bool          `json:"network,omitempty"`
	Memory  int64         `json:"memory,omitempty"` // bytes
	CPU     float64       `json:"cpu,omitempty"`
	Pids    int           `json:"pids,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Skill is a skill as it stands in the plan.
type Skill struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Dir         string     `json:"dir"` // its folder in the bundle
	Parameters  []Property `json:"parameters,omitempty"`
	Open        bool       `json:"open,omitempty"`    // it names no parameters and takes any
	Returns     *Type      `json:"returns,omitempty"` // nil: any
	Command     []string   `json:"command,omitempty"` // argv; "./x" is a file of Dir
	Run         string     `json:"run,omitempty"`     // a line for the shell
	Sandbox     *Sandbox   `json:"sandbox,omitempty"` // how its program is locked in where the step does not say; it always is
	Prompt      string     `json:"prompt,omitempty"`  // of skills without a command: asked of a model with the parameters
}

// Wait is what a wait step waits for; exactly one of For, Until, Signal and
// Files is set.
type Wait struct {
	For    *Field        `json:"for,omitempty"`    // a duration
	Until  *Field        `json:"until,omitempty"`  // a time, RFC 3339
	Signal *Field        `json:"signal,omitempty"` // a name
	Files  *Field        `json:"files,omitempty"`  // a pattern, relative to the workspace
	Count  int           `json:"count,omitempty"`  // of files; default 1
	Poll   time.Duration `json:"poll,omitempty"`   // of files; default 500ms
}

// Ask is a question to people.
type Ask struct {
	Approve   bool          `json:"approve,omitempty"` // the choices are approve and reject
	Question  Field         `json:"question"`
	Choices   *Field        `json:"choices,omitempty"` // a list
	Schema    *Type         `json:"schema,omitempty"`  // the type of the answer
	Default   *Field        `json:"default,omitempty"`
	Assignees *Field        `json:"assignees,omitempty"`  // a list of names; none: anyone
	Quorum    int           `json:"quorum,omitempty"`     // equal answers that are needed; default 1
	Deadline  time.Duration `json:"deadline,omitempty"`   // 0: none
	OnTimeout string        `json:"on_timeout,omitempty"` // fail, default, approve, reject; default: default where there is one, else reject for approve, else fail
}

// Call runs another pipeline: within the run, or as a run of its own.
type Call struct {
	Name   string  `json:"name"`
	Unit   int     `json:"unit"` // of Plan.Units
	With   []Entry `json:"with,omitempty"`
	Detach bool    `json:"detach,omitempty"`
}

// Compete judges what the candidates gave. Its body holds the candidates and,
// where there is a judge, a last step of the id judge that depends on them all
// and sees their outputs under the name candidates: a map by id, null of those
// that failed. The judge's output names the winner: an id, a list of ids, a map
// with one of these under winner, or a map of numbers by id, which may stand
// under scores. Of several that are named or that have the same number, and of
// all where there is no judge, TieBreak takes one. Only what has completed wins;
// a block without a winner fails.
type Compete struct {
	Judge    bool   `json:"judge,omitempty"`
	TieBreak string `json:"tie_break,omitempty"` // first (default), shortest, longest
	Ledger   *Field `json:"ledger,omitempty"`    // a file that a line of JSON is added to
}

// Dep is an edge within a body: the step at index On finishes first.
type Dep struct {
	On    int    `json:"on"`
	Cause string `json:"cause"` // declared, reference, state, sequence, jump, artifact
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

// Loop is the body of for, while, repeat and queue with what repeats it.
type Loop struct {
	Items       *Field    `json:"items,omitempty"`         // of for and queue
	Variable    string    `json:"variable,omitempty"`      // of for and queue; default item
	Parallel    int       `json:"parallel,omitempty"`      // passes at once; 0 and 1: one after the other; -1: as many as the run may
	Collect     *Template `json:"collect,omitempty"`       // after a pass
	OnItemError string    `json:"on_item_error,omitempty"` // fail (default), continue
	Condition   *Template `json:"condition,omitempty"`     // of while: before a pass
	Until       *Template `json:"until,omitempty"`         // of repeat and queue: after a pass
	Max         int       `json:"max,omitempty"`           // passes, of while and repeat
	OnExhausted string    `json:"on_exhausted,omitempty"`  // of repeat: fail (default), continue, outputs
	Exhausted   []Entry   `json:"exhausted,omitempty"`     // of on_exhausted: outputs, which take the place of the output
	Single      bool      `json:"single,omitempty"`        // the body is one step without an id of its own
	Body        Body      `json:"body"`
}

// Branch is one arm of a choice; the first whose condition holds, or whose case
// matches, is taken.
type Branch struct {
	Condition *Template `json:"condition,omitempty"` // of if; nil: else
	Case      *string   `json:"case,omitempty"`      // of match, as text; nil: default
	Body      Body      `json:"body"`
}

// Template is a text with placeholders, or a condition.
type Template struct {
	ID        int    `json:"id"`
	Src       string `json:"src"`
	Pos       Pos    `json:"pos"`                 // of the value in the source
	Condition bool   `json:"condition,omitempty"` // a bare expression
	Impure    bool   `json:"impure,omitempty"`    // reads files or the clock
	// Autos are the <AUTO> tags that stood in the text, in order; Src reads the
	// answer to the i-th as __auto__[i].
	Autos []*Auto `json:"autos,omitempty"`
}

// AutoName is the name under which templates read the answers to their <AUTO>
// tags. Nothing else can be called so.
const AutoName = "__auto__"

// Auto is a value that is filled in when its step starts: by an answer that was
// given, by a model, or by its fallback.
type Auto struct {
	Key      string    `json:"key"`            // within the step, dotted: "style" of a parameter, else as in "for.items"; "#2" follows for the second tag of a text
	Prompt   *Template `json:"prompt"`         // the text of the tag; tags within it stand in its Autos
	Type     Type      `json:"type"`           // what the answer must be
	Hint     []string  `json:"hint,omitempty"` // choices that the text names, as in "a, b, or c"; advice, not a limit
	Task     string    `json:"task,omitempty"`
	Model    string    `json:"model,omitempty"`
	Fallback *Field    `json:"fallback,omitempty"`
	Pos      Pos       `json:"pos"`
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
	Secret  []string   `json:"secret,omitempty"` // parameters in which secrets may stand, as in "headers"
}

// Catalog is what a compiler may resolve: actions by key, and models. It is data;
// its Digest names the exact set.
type Catalog struct {
	Actions map[string]*ActionSpec
	Models  []ModelSpec // of the registry; nil: it is not known, and names of models are not checked
	Policy  *Policy     // nil: everything is allowed
	Skills  []string    // names of those installed, to suggest one for a name that is none
	Servers []MCPServer // of the installation, that any pipeline may name: Name, Allow and Deny of each
	Digest  Digest
}

// Policy is what a server allows pipelines to do.
type Policy struct {
	// Actions are those that may be named: actions by name or key, all operations
	// of a tool by its name, "command" for programs and lines for the shell, and
	// tools of MCP servers by name; patterns as path.Match has them. Empty: all.
	Actions []string `json:"actions,omitempty"`
}

// Allows reports whether what goes by one of the names may be done.
func (p *Policy) Allows(names ...string) bool {
	if p == nil || len(p.Actions) == 0 {
		return true
	}
	for _, pattern := range p.Actions {
		for _, name := range names {
			if ok, err := path.Match(pattern, name); err == nil && ok && name != "" {
				return true
			}
		}
	}
	return false
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
