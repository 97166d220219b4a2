package pipeline

import "time"

// EventType is the type of a record in a run's log.
type EventType string

// The event types. Live-only messages (EventLog, EventDelta) are never stored and have seq 0.
const (
	RunCreated        EventType = "run_created"
	RunStarted        EventType = "run_started"
	RunResumed        EventType = "run_resumed"
	RunIsWaiting      EventType = "run_waiting"
	RunIsPaused       EventType = "run_paused"
	RunFinished       EventType = "run_finished"
	StepStarted       EventType = "step_started"
	StepRetrying      EventType = "step_retrying"
	StepIsWaiting     EventType = "step_waiting"
	StepFinished      EventType = "step_finished"
	StepWasSkipped    EventType = "step_skipped"
	StateSet          EventType = "state_set"
	AutoResolved      EventType = "auto_resolved"
	ModelCalled       EventType = "model_called"
	ToolCalled        EventType = "tool_called"
	ApprovalIsDecided EventType = "approval_decided"
	SignalReceived    EventType = "signal_received"
	Checkpoint        EventType = "checkpoint"
	WorkspaceLost     EventType = "workspace_lost"
	EventLog          EventType = "log"
	EventDelta        EventType = "delta"
)

// SignalCancel is the name of the signal that ends a run; SignalTimeout that of
// its own time limit. SignalHandedOver is the last word of an owner that leaves
// in good order: what it had under way is begun again by the next one.
const (
	SignalCancel     = "cancel"
	SignalTimeout    = "timeout"
	SignalHandedOver = "handed_over"
)

// SignalSteer is the name of the signal that says something to a running agent:
// it stands at the path of the agent's step.
const SignalSteer = "steer"

// Event is one record of a run's log: the only input of the Machine and of
// every View. Seq counts from 1 without gaps; Path is empty for the run.
type Event struct {
	Seq     int32
	Type    EventType
	Path    Path
	Attempt int32
	At      time.Time
	Data    Data
}

// Data is what an event says; each type uses the few fields named here.
// Values are JSON values as DecodeValue gives them.
type Data struct {
	Kind       Kind           // step_started, step_skipped
	Action     string         // step_started, step_skipped
	Parameters any            // step_started: what the step was given; of a call: its inputs
	Items      []any          // step_started of for and queue: the resolved items
	Branch     *int           // step_started of if and match: the arm taken; -1: none
	Vars       map[string]any // step_started of call: the vars of what is called
	Consumed   []Version      // step_started: the versions of artifacts that it was handed
	Worker     string         // step_started
	Remote     bool           // step_started: the attempt runs outside the owner's process
	Adopted    bool           // step_retrying, step_finished: another process than the owner carried out the attempt
	Waiting    *Waiting       // step_waiting: what it waits for
	Status     StepStatus     // step_finished
	Output     any            // step_finished
	State      map[string]any // step_finished, state_set: variables assigned, of the unit that the step stands in
	Published  []Version      // step_finished: versions of artifacts that it made
	Rule       int32          // step_finished, step_retrying: 1 + the index of the on_error rule that was carried out; 0: none
	Error      *Failure       // step_finished, step_retrying, run_finished; state_set at a pass that is over: why its collect or until could not be evaluated
	Due        time.Time      // step_retrying: when the next attempt may start
	Reason     string         // step_skipped, step_finished, run_*: snake_case
	RunStatus  RunStatus      // run_finished
	Outputs    map[string]any // run_finished
	Collected  any            // state_set at a pass that is over: the value of the loop's collect
	Done       bool           // state_set at a pass that is over: the loop's until holds
	Pass       bool           // state_set at a pass: the pass begins
	Answers    map[string]any // run_created: answers to <AUTO> tags that were handed in
	Uploads    Digest         // run_created: of the files to put into the workspace, stored as a bundle
	Fork       *Fork          // run_created: whose records it may use
	Trace      *Trace         // run_created: the trace that the run belongs to; nil: one of its own
	Auto       *Answer        // auto_resolved
	Decision   *Decision      // approval_decided
	Signal     string         // signal_received: its name; "cancel" ends the run. step_finished of a wait: the signal that it took
	Value      any            // signal_received: what came with it
	Actor      string         // signal_received: who
	Child      RunID          // step_finished of a detached call: the run that it started
	Call       *Invocation    // model_called, tool_called
	Model      string         // step_finished, model_called
	Usage      *Usage         // step_finished, model_called
	Cached     bool           // step_finished
	Reused     *Reused        // step_finished: the record of another run that it is
	Given      Digest         // step_started, step_waiting, step_finished: of what it was given besides its parameters and artifacts; empty: nothing
	Snapshot   *SnapshotRef   // checkpoint
	Workspace  *WorkspaceRef  // checkpoint: the files were saved; workspace_lost: which are gone
}

// WorkspaceRef says what a run's directory held when it was saved, and where that
// is kept.
type WorkspaceRef struct {
	Save     int32  `json:"save"`               // counts from 1 within the run
	Manifest Digest `json:"manifest,omitempty"` // blob of the run that lists the files; empty: they are too large and only with Holder
	Files    int32  `json:"files"`
	Size     int64  `json:"size"` // bytes of the files together
	Holder   string `json:"holder,omitempty"`
}

// SnapshotRef says where the snapshot of a checkpoint is kept, and what it holds.
type SnapshotRef struct {
	Covers int32    // seq of the newest event that the snapshot knows
	Size   int64    // bytes, as kept
	Parts  []Digest // blobs of the run that hold it, in order
}

// Waiting is what a step waits for.
type Waiting struct {
	For      string        // timer, signal, files, approval, worker, retry
	Due      time.Time     // of a timer or retry: its end; else the deadline; zero: none
	Signal   string        // of a signal: its name
	Files    string        // of files: the pattern
	Count    int           // of files
	Poll     time.Duration // of files
	Approval ApprovalID    // of an approval
	// Approvals are those that work waits for; it goes on when one is decided.
	Approvals []ApprovalID
	Labels    []string // of a worker: what it must have
}

// Answer is the value of an <AUTO> tag, recorded once and used by every attempt.
type Answer struct {
	Key   string // of the tag within its step
	Value any
	From  string // answer, fallback, model, cache
	Model string // of model and cache
	// Kind is what was left open, and Content names the whole question, of model and
	// cache; Usage is what the answer has cost this run.
	Kind    string
	Content Digest
	Usage   *Usage
}

// Version is a version of an artifact.
type Version struct {
	Artifact string
	Version  int32 // counts from 1 within the run
	Producer Path
	Value    any    // what was published; of a path: its text
	Blob     Digest // of a path to a file: its content, as stored; else empty
	Size     int64  // of Blob
}
