package pipeline

import "time"

// EventType is the type of a record in a run's log.
type EventType string

// The event types. Live-only messages (EventLog) are never stored and have seq 0.
const (
	RunCreated     EventType = "run_created"
	RunStarted     EventType = "run_started"
	RunResumed     EventType = "run_resumed"
	RunIsWaiting   EventType = "run_waiting"
	RunIsPaused    EventType = "run_paused"
	RunFinished    EventType = "run_finished"
	StepStarted    EventType = "step_started"
	StepRetrying   EventType = "step_retrying"
	StepIsWaiting  EventType = "step_waiting"
	StepFinished   EventType = "step_finished"
	StepWasSkipped EventType = "step_skipped"
	StateSet       EventType = "state_set"
	SignalReceived EventType = "signal_received"
	EventLog       EventType = "log"
)

// SignalCancel is the name of the signal that ends a run; SignalTimeout that of
// its own time limit. SignalHandedOver is the last word of an owner that leaves
// in good order: what it had under way is begun again by the next one.
const (
	SignalCancel     = "cancel"
	SignalTimeout    = "timeout"
	SignalHandedOver = "handed_over"
)

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
	Parameters any            // step_started: what the step was given
	Items      []any          // step_started of for: the resolved items
	Branch     *int           // step_started of if: the arm taken; -1: none
	Worker     string         // step_started
	Status     StepStatus     // step_finished
	Output     any            // step_finished
	State      map[string]any // step_finished, state_set: variables assigned
	Error      *Failure       // step_finished, step_retrying, run_finished
	Due        time.Time      // step_retrying: when the next attempt may start
	Reason     string         // step_skipped, step_finished, run_*: snake_case
	RunStatus  RunStatus      // run_finished
	Outputs    map[string]any // run_finished
	Collected  any            // state_set at a pass: the value of the loop's collect
	Pass       bool           // state_set at a pass: the pass begins
	Signal     string         // signal_received: its name; "cancel" ends the run
	Actor      string         // signal_received: who
	Model      string         // step_finished
	Usage      *Usage         // step_finished
	Cached     bool           // step_finished
}
