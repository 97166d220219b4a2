package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Schedules keeps schedules and what became of their fires. All times are by the
// store's clock.
//
// A fire goes through three transactions, so that a crash between any two repeats
// nothing: TakeSchedules hands a due schedule to one caller for a while,
// DecideFires records what is to become of its fires, and, after their runs were
// submitted under pipeline.FireKey, AdvanceSchedule records these and moves on.
type Schedules interface {
	// Clock is the store's time.
	Clock(ctx context.Context) (time.Time, error)
	// CreateSchedule stores a new schedule and sets its Revision and times; an id
	// that is used gives Conflict.
	CreateSchedule(ctx context.Context, s *pipeline.Schedule) error
	// UpdateSchedule replaces a schedule that still has the given Revision, else it
	// gives Conflict, and sets its Revision and UpdatedAt. LastFire, LastRun, Waiting
	// and Parallel stay. One that waits is due at once, unless it is paused.
	UpdateSchedule(ctx context.Context, s *pipeline.Schedule) error
	// DeleteSchedule removes a schedule with its fires; its runs stay.
	DeleteSchedule(ctx context.Context, id string) error
	// Schedule reads one schedule.
	Schedule(ctx context.Context, id string) (*pipeline.Schedule, error)
	// Schedules lists schedules by id, by keyset.
	Schedules(ctx context.Context, q ScheduleQuery) ([]*pipeline.Schedule, error)

	// TakeSchedules hands out up to n schedules that are due. Nobody else gets
	// them until hold has passed, somebody changes them or AdvanceSchedule says when
	// they are due again.
	TakeSchedules(ctx context.Context, n int, hold time.Duration) (Taken, error)
	// DecideFires records fires of a schedule that still has the given revision, else
	// it gives Conflict. Fires that were recorded before stay as they are; it returns
	// the times of the others.
	DecideFires(ctx context.Context, id string, revision int64, fires []pipeline.Fire) ([]time.Time, error)
	// AdvanceSchedule records what became of open fires and which one was the last to
	// start a run, and, if the schedule still has s.Revision, its Next, Due and
	// Waiting; otherwise it gives Conflict.
	AdvanceSchedule(ctx context.Context, s *pipeline.Schedule, fires []pipeline.Fire) error
	// WakeSchedule makes a schedule that waits due at once, and tells whether it did.
	WakeSchedule(ctx context.Context, id string) (bool, error)
	// Backfill adds pending fires at those of the times that have started no run
	// and are not about to, makes the schedule due, and returns how many it added.
	Backfill(ctx context.Context, id string, times []time.Time, parallel int) (int, error)
	// Fires lists fires of a schedule, newest first, by keyset.
	Fires(ctx context.Context, q FireQuery) ([]pipeline.Fire, error)
}

// ScheduleQuery selects schedules.
type ScheduleQuery struct {
	Pipeline string // empty: of all
	After    string // keyset: only greater ids
	Limit    int
}

// FireQuery selects fires of one schedule.
type FireQuery struct {
	Schedule string
	Before   time.Time // keyset: only older ones; zero: all
	Limit    int
}

// Taken is what TakeSchedules hands out.
type Taken struct {
	Now  time.Time // by the store's clock
	List []TakenSchedule
}

// TakenSchedule is a schedule with its open fires: first those that are no
// backfill, then backfills that have started, then up to MaxOpen that have not,
// each by time.
type TakenSchedule struct {
	*pipeline.Schedule
	Open []pipeline.Fire
}

// MaxOpen is how many open fires TakeSchedules reads of one schedule.
const MaxOpen = 400

// ScheduleNotFound is the error of an unknown schedule.
func ScheduleNotFound(id string) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "schedule_not_found", Text: fmt.Sprintf("there is no schedule %s", id)}
}

// ScheduleExists is the error of an id that is used.
func ScheduleExists(id string) error {
	return &pipeline.Error{Kind: pipeline.Conflict, Reason: "schedule_exists", Text: fmt.Sprintf("there is a schedule %s already; update it, or choose another id", id)}
}

// ScheduleChanged is the error of a revision that has passed.
func ScheduleChanged(id string) error {
	return &pipeline.Error{Kind: pipeline.Conflict, Reason: "schedule_changed", Text: fmt.Sprintf("schedule %s was changed meanwhile; read it again", id)}
}

// EncodeCron writes the expressions of a schedule into one column.
func EncodeCron(list []string) string { return Clean(strings.Join(list, "\n")) }

// DecodeCron reads what EncodeCron wrote.
func DecodeCron(text string) []string { return strings.Split(text, "\n") }
