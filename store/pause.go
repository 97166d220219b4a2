package store

// What is said to a run about pausing it. A run that is parked while it is
// paused is queued by MessageResume and MessageCancel alone: all else waits with
// it.
const (
	MessagePause  = "pause"
	MessageResume = "resume"
)

// WakesPaused reports whether a message of this kind queues a run that is parked
// while it is paused.
func WakesPaused(kind string) bool { return kind == MessageResume || kind == MessageCancel }
