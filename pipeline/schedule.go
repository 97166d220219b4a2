package pipeline

import (
	"hash/fnv"
	"time"
)

// What a schedule does when a fire comes while the run of the one before is not over.
const (
	OverlapSkip   = "skip"            // the fire starts no run (default)
	OverlapQueue  = "queue"           // one fire waits for the end of that run; further ones are skipped
	OverlapAllow  = "allow"           // both run
	OverlapCancel = "cancel_previous" // that run is cancelled
)

// Overlaps lists what Schedule.Overlap may be, the default first.
var Overlaps = []string{OverlapSkip, OverlapQueue, OverlapAllow, OverlapCancel}

// Which fires that were missed, while no server ran, are made up.
const (
	CatchUpLatest = "latest" // the newest one (default)
	CatchUpAll    = "all"
	CatchUpNone   = "none"
)

// CatchUps lists what Schedule.CatchUp may be, the default first.
var CatchUps = []string{CatchUpLatest, CatchUpAll, CatchUpNone}

// The bounds of schedules.
const (
	DefaultCatchUpWindow = time.Hour
	MaxCatchUpWindow     = 7 * 24 * time.Hour
	MaxJitter            = time.Hour
	MaxBackfill          = 10_000               // fires of one request
	MaxBackfillParallel  = 100                  // runs of a backfill at once
	BackfillReach        = 366 * 24 * time.Hour // how far back a backfill may begin
	// FireRetention is how long it is remembered which fires there were. It is
	// longer than BackfillReach, so that no backfill repeats one.
	FireRetention = 400 * 24 * time.Hour
)

// The labels of runs that a schedule starts.
const (
	LabelSchedule = "schedule" // the schedule's id
	LabelFire     = "fire"     // the fire time, RFC 3339 in UTC
	LabelBackfill = "backfill" // "true": it was asked for afterwards
)

// Schedule starts runs of a pipeline at times.
type Schedule struct {
	ID          string
	Name        string
	Pipeline    string // id of a registered pipeline
	Version     string // empty: the newest when it fires
	Inputs      map[string]any
	Labels      map[string]string
	Priority    int32
	Cron        []string      // expressions of five fields, or aliases
	Zone        string        // IANA name; empty: UTC
	Overlap     string        // one of Overlaps
	CatchUp     string        // one of CatchUps
	CatchUpFrom time.Duration // how old a missed fire may be to be made up
	Jitter      time.Duration // each fire is late by a part of it
	Start, End  time.Time     // no fires before, none after; zero: no bound
	Paused      bool
	Owned       bool // it follows the pipeline's `on`

	// What follows is kept by the scheduler.
	Next      time.Time // the next fire; zero: none comes
	LastFire  time.Time // the newest fire that started a run
	LastRun   RunID
	Due       time.Time // when it is looked at again; zero: never
	Waiting   bool      // fires are open: they wait for a run to end, or for the scheduler
	Parallel  int       // runs of its backfill at once
	Revision  int64     // changes with everything but WakeSchedule
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Delay is how late a fire comes, from 0 to below Jitter: always the same for one
// fire, whoever asks.
func (s *Schedule) Delay(fire time.Time) time.Duration {
	if s.Jitter <= 0 || fire.IsZero() {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(FireKey(s.ID, fire)))
	return time.Duration(h.Sum64() % uint64(s.Jitter)) //nolint:gosec // below Jitter, which is a Duration
}

// DueAt is when the scheduler is to look at the schedule for its next fire.
func (s *Schedule) DueAt() time.Time {
	if s.Paused || s.Next.IsZero() {
		return time.Time{}
	}
	return s.Next.Add(s.Delay(s.Next))
}

// FireKey is the idempotency key of the run of a fire.
func FireKey(schedule string, fire time.Time) string {
	return "schedule/" + schedule + "/" + fire.UTC().Format(time.RFC3339)
}

// FireState is what became of a fire.
type FireState string

// The states of a fire.
const (
	FirePending  FireState = "pending"  // it is decided that a run is started
	FireBuffered FireState = "buffered" // it waits for the run before it
	FireStarted  FireState = "started"  // its run is there
	FireSkipped  FireState = "skipped"  // no run; Reason says why
	FireFailed   FireState = "failed"   // no run could be made; Reason says why
)

// Fire is one time of a schedule that has come, or that a backfill has asked for.
type Fire struct {
	At       time.Time // by the schedule, without jitter
	State    FireState
	Open     bool // the scheduler is not through with it
	Backfill bool
	Run      RunID  // of FireStarted
	Reason   string // of FireSkipped and FireFailed
	Decided  time.Time
}

// ScheduledAt is the fire time of a run that a schedule has started; of another
// run, when it was created.
func (r *Run) ScheduledAt() time.Time {
	if r.Labels[LabelSchedule] != "" {
		if t, err := time.Parse(time.RFC3339, r.Labels[LabelFire]); err == nil {
			return t
		}
	}
	return r.CreatedAt
}
