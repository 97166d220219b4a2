// Package pipeline is the domain of Orchestrator: what a compiled pipeline is
// (Plan), what a run of it has gone through (Event, View) and what may happen
// next (Machine). It is pure: no I/O, no clock, no goroutines, so that the
// executor, dry runs, the simulator and every viewer share one meaning.
//
// The language lives in pipeline/spec (YAML to Plan), expressions in
// pipeline/expr, the drawing of graphs in pipeline/graph.
//
// A run is driven by asking the Machine what to do and telling it what
// happened:
//
//	m := pipeline.NewMachine(plan, run)
//	for _, task := range m.Next() {
//		// evaluate or execute the task, then
//		m.Apply(event)
//	}
package pipeline

import (
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
)

// RunID names a run: a UUIDv7 in its usual text form, so that ids sort by time.
type RunID string

// NewRunID returns a fresh id. Ids made later in one process sort later.
func NewRunID() RunID {
	return RunID(uuid.Must(uuid.NewV7()).String())
}

// ParseRunID checks that s is a UUIDv7 and returns it in canonical form.
func ParseRunID(s string) (RunID, bool) {
	u, err := uuid.Parse(s)
	if err != nil || u.Version() != 7 {
		return "", false
	}
	return RunID(u.String()), true
}

// Time is the moment in the id, to the millisecond, in UTC.
func (id RunID) Time() time.Time {
	u, err := uuid.Parse(string(id))
	if err != nil {
		return time.Time{}
	}
	ms := int64(u[0])<<40 | int64(u[1])<<32 | int64(u[2])<<24 | int64(u[3])<<16 | int64(u[4])<<8 | int64(u[5])
	return time.UnixMilli(ms).UTC()
}

// Day is the UTC day of the id, which is the partition that the run lives in.
func (id RunID) Day() time.Time {
	return id.Time().Truncate(24 * time.Hour)
}

// Digest names content: "sha256:" and 64 hexadecimal digits.
type Digest string

// Path names a step instance within a run: ids joined by "/", with "[i]" for
// the 0-based pass of a loop, as in "test_loop[2]/run_tests", and "~v" for the
// visit from the second on, as in "draft~2". A call adds its id; the bodies of
// other blocks that are no loops add nothing. The empty path is the run itself.
type Path string

// RunStatus is the state of a run.
type RunStatus string

// The run states. COMPLETED, FAILED and CANCELLED are final.
const (
	RunQueued    RunStatus = "QUEUED"
	RunRunning   RunStatus = "RUNNING"
	RunWaiting   RunStatus = "WAITING"
	RunPaused    RunStatus = "PAUSED"
	RunCompleted RunStatus = "COMPLETED"
	RunFailed    RunStatus = "FAILED"
	RunCancelled RunStatus = "CANCELLED"
)

// RunStatuses lists the run states in the order of a run's life.
var RunStatuses = []RunStatus{RunQueued, RunRunning, RunWaiting, RunPaused, RunCompleted, RunFailed, RunCancelled}

// Final reports whether a run in this state never changes again.
func (s RunStatus) Final() bool {
	return s == RunCompleted || s == RunFailed || s == RunCancelled
}

// StepStatus is the state of a step instance.
type StepStatus string

// The step states. COMPLETED, FAILED, SKIPPED and CANCELLED are final.
const (
	StepPending   StepStatus = "PENDING"
	StepRunning   StepStatus = "RUNNING"
	StepWaiting   StepStatus = "WAITING"
	StepCompleted StepStatus = "COMPLETED"
	StepFailed    StepStatus = "FAILED"
	StepSkipped   StepStatus = "SKIPPED"
	StepCancelled StepStatus = "CANCELLED"
)

// Final reports whether a step in this state never changes again.
func (s StepStatus) Final() bool {
	return s == StepCompleted || s == StepFailed || s == StepSkipped || s == StepCancelled
}

// Usage is what a step or run has consumed.
type Usage struct {
	InputTokens  int32   `json:"input_tokens,omitempty"`
	OutputTokens int32   `json:"output_tokens,omitempty"`
	CostUSD      float64 `json:"cost_usd,omitempty"`
	// CachedTokens are those of InputTokens that the provider had kept, and
	// CacheWriteTokens those that it keeps from now on; ReasoningTokens are those of
	// OutputTokens that nobody sees.
	CachedTokens     int32 `json:"cached_tokens,omitempty"`
	CacheWriteTokens int32 `json:"cache_write_tokens,omitempty"`
	ReasoningTokens  int32 `json:"reasoning_tokens,omitempty"`
	Calls            int32 `json:"calls,omitempty"`     // of models
	Unpriced         int32 `json:"unpriced,omitempty"`  // those of Calls whose cost nobody knows; CostUSD is without it
	Estimated        bool  `json:"estimated,omitempty"` // some of it: the provider did not say
	// What of the above recorded answers had taken when they were given. Nobody pays
	// for them again.
	ReplayedTokens int32   `json:"replayed_tokens,omitempty"`
	ReplayedUSD    float64 `json:"replayed_usd,omitempty"`
	ReplayedCalls  int32   `json:"replayed_calls,omitempty"`

	Steps int32 `json:"steps,omitempty"` // finished step instances; runs only
}

// Add adds another usage; nil adds nothing. Counts stop at the largest int32.
func (u *Usage) Add(o *Usage) {
	if o == nil {
		return
	}
	u.InputTokens = sum32(u.InputTokens, o.InputTokens)
	u.OutputTokens = sum32(u.OutputTokens, o.OutputTokens)
	u.CachedTokens = sum32(u.CachedTokens, o.CachedTokens)
	u.CacheWriteTokens = sum32(u.CacheWriteTokens, o.CacheWriteTokens)
	u.ReasoningTokens = sum32(u.ReasoningTokens, o.ReasoningTokens)
	u.Calls = sum32(u.Calls, o.Calls)
	u.Unpriced = sum32(u.Unpriced, o.Unpriced)
	u.ReplayedTokens = sum32(u.ReplayedTokens, o.ReplayedTokens)
	u.ReplayedUSD += o.ReplayedUSD
	u.ReplayedCalls = sum32(u.ReplayedCalls, o.ReplayedCalls)
	u.CostUSD += o.CostUSD
	u.Estimated = u.Estimated || o.Estimated
}

func sum32(a, b int32) int32 {
	return int32(min(int64(a)+int64(b), math.MaxInt32)) //nolint:gosec // bounded
}

// Run is one execution of a plan, as its viewers see it.
type Run struct {
	ID         RunID
	Pipeline   string // the pipeline's id
	Version    string // the pipeline's own version
	PlanDigest Digest
	Status     RunStatus
	Reason     string // snake_case: why it waits, failed or was cancelled; else empty
	Inputs     map[string]any
	Outputs    map[string]any // nil until the run has finished
	Error      *Failure
	Labels     map[string]string
	Priority   int32
	Queue      string // empty: DefaultQueue
	FairKey    string // what shares the queue's turns; empty: the pipeline's id
	// Concurrency is its key as evaluated at submission; the zero value: none.
	Concurrency Concurrency
	CreatedAt   time.Time
	StartedAt   time.Time // zero until the first owner took it
	FinishedAt  time.Time
	ParentRun   RunID
	ForkedFrom  RunID
	ForkSeq     int32 // of ForkedFrom: the newest record that it may use
	// Checkpoint is the seq of the newest event that the newest snapshot knows; 0:
	// there is none. The record that names the snapshot follows. It never leaves
	// the server.
	Checkpoint int32
	Usage      Usage
	// Workspace is the directory whose relative paths the steps mean. It is a
	// fact of the engine that runs it and never leaves the server.
	Workspace string
}

// Submission is a checked request to start a run.
type Submission struct {
	Plan           *Plan
	PlanDigest     Digest
	Compiled       []byte         // the plan as stored
	Source         []byte         // the YAML text it came from
	Inputs         map[string]any // checked and completed
	Labels         map[string]string
	Priority       int32
	Queue          string         // empty: the pipeline's
	FairKey        string         // empty: the pipeline's id
	Answers        map[string]any // to <AUTO> tags, by "step.param" as the plan's holes are called
	Bundle         Bundle         // the files that Plan.Bundle names; nil where they are stored already
	Uploads        Bundle         // files to put into the workspace before the run starts
	Fork           *Fork          // whose records the run may use; nil: nobody's
	IdempotencyKey string         // empty: none
	RequestDigest  Digest         // of everything the caller sent; tells a repetition from a misuse of the key
}

// Planned is a step as a dry run sees it.
type Planned struct {
	Path     Path // without the numbers of passes
	Kind     Kind
	WouldRun string // yes, no, or unknown where that depends on what other steps give
	Command  string // the command line, as far as it is known
	Prompt   string // what a model, an agent or a person would be asked
	Reason   string // why it would not run, or what is not known yet
}

// Step is one step instance, as its viewers see it.
type Step struct {
	Path       Path
	ID         string
	Kind       Kind
	Action     string // of actions
	Status     StepStatus
	Reason     string // snake_case: why it was skipped or waits
	Attempt    int32  // the newest attempt's number, from 1; 0 before the first
	Parameters any
	Output     any
	Error      *Failure
	StartedAt  time.Time
	FinishedAt time.Time
	Worker     string
	Remote     bool   // the newest attempt runs outside its owner's process
	Lost       string // while it runs: why the run lost the owner that began the newest attempt; empty: it has not
	Model      string
	Usage      Usage
	Called     bool // it has asked models or tools, or tried to
	CacheHit   bool
	ReusedFrom RunID     // the run that its end was taken from
	Children   int32     // of blocks: passes or items that will run, when known
	Waiting    *Waiting  // while it waits: for what
	Artifacts  []Version // that it published
}

// ID is the id of the step that the path names: its last segment without the
// number of a pass or visit.
func (p Path) ID() string {
	s := string(p)
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	if i := strings.IndexAny(s, "[~"); i >= 0 {
		s = s[:i]
	}
	return s
}

// zeroTime is the time of what has not happened.
var zeroTime time.Time
