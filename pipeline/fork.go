package pipeline

// ForkMode says which records of another run a new run uses in place of working.
type ForkMode string

// The modes. All but a replay begin what has no record, or one that no longer
// fits; a replay begins nothing.
const (
	ForkRetry  ForkMode = "retry"  // everything that completed
	ForkRerun  ForkMode = "rerun"  // what began before a step
	ForkAt     ForkMode = "fork"   // what ended up to a record of the log
	ForkReplay ForkMode = "replay" // everything, whatever came of it
)

// Fork says whose records a run may use. It stands in its run_created.
type Fork struct {
	From  RunID    `json:"from"`
	Seq   int32    `json:"seq"` // of the newest record that may be used
	Mode  ForkMode `json:"mode"`
	Rerun []Path   `json:"rerun,omitempty"` // of a rerun: the instances from which on everything runs again
}

// Reused says of a step's end that it is one of another run's records and that
// nothing was launched.
type Reused struct {
	Run     RunID  `json:"run"`
	Seq     int32  `json:"seq"`
	Differs string `json:"differs,omitempty"` // of a replay: what the step would be given now, or is now, that the record was not made with
}

// Forking is a request for a run that uses the records of another.
type Forking struct {
	From RunID
	Mode ForkMode
	Step Path  // of ForkRerun
	At   int32 // of ForkAt: the newest record to use; 0: the newest there is
	// Edit holds what changes: of ForkAt the inputs, by name, that take the place of
	// the source's, answers to <AUTO> tags likewise, and another plan; its Plan is nil
	// where the source's stays. Of all modes: the idempotency key and the digest of
	// the request.
	Edit Submission
}

// What a fork would do with a step.
const (
	WouldReuse   = "reuse"
	WouldRerun   = "rerun"
	WouldSkip    = "skip"
	WouldUnknown = "unknown" // it depends on what a step gives that runs again
)

// ForkStep is a step as the preview of a fork sees it.
type ForkStep struct {
	Path     Path // of an instance, or of a step of the plan that no instance is known of yet
	Kind     Kind
	Decision string
	Reason   string // in words; why it is not reused
}

// The reasons that forks give.
const (
	ReasonNotRecorded = "not_recorded" // a replay came to a step that its source has no end of
	// ReasonUnpaused is why a run is resumed that was paused; until then it stays
	// paused, whoever takes it over.
	ReasonUnpaused = "unpaused"
)

// Paused reports whether the run hands out nothing until it is resumed.
func (m *Machine) Paused() bool { return m.Run.Status == RunPaused }

// Ending is the signal that ends the run from outside, SignalCancel or
// SignalTimeout; empty: none does.
func (m *Machine) Ending() string { return m.cancel }

// InFlight reports whether the log knows of an attempt that has not ended.
func (m *Machine) InFlight() bool {
	found := false
	m.unit.walk(func(x *inst) { found = found || x.step.Status == StepRunning && x.block == nil })
	return found
}
