package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Queues are the lines in which runs wait for their start, and what holds them
// back there.
//
// A run that was submitted QUEUED stands in the queue that it names. Claims take
// the higher priority first. Within it the queues take turns, and within a queue
// its fair keys do, each by its weight, first come, first served within a key; a
// key that was idle begins where the others are. Runs that have started before
// (woken, handed over, reclaimed) stand in a line of their own, which goes first
// within each priority, and no limit holds them back.
type Queues interface {
	// Queues lists all queues by name. Rows appear when a queue is first used
	// or set.
	Queues(ctx context.Context) ([]Queue, error)
	// Queue reads one queue; one that was never used has the defaults.
	Queue(ctx context.Context, name string) (*Queue, error)
	// SetQueue changes settings of a queue and rings for it. Runs that own a lane
	// when the queue gets its first MaxRunning count from then on.
	SetQueue(ctx context.Context, name string, c QueueChange) (*Queue, error)
	// PausePipeline lets no queued run of the pipeline start until it is called
	// with paused false. It tells since when and by whom the pipeline is paused,
	// or nil. Both change nothing where they find what they ask for.
	PausePipeline(ctx context.Context, id string, paused bool, actor string) (*Pause, error)
	// PipelinePaused tells since when and by whom a pipeline is paused, or nil.
	PipelinePaused(ctx context.Context, id string) (*Pause, error)
	// Gates are the queues and pipelines whose new runs must go through the queue.
	Gates(ctx context.Context) (Gates, error)
	// Standing is what holds a run where it is, as the rows have it.
	Standing(ctx context.Context, run pipeline.RunID) (*Standing, error)
}

// The bounds of settings of queues.
const (
	MaxFairKey = 256       // bytes of a fair or concurrency key
	MaxWeight  = 1000      // of a queue or a key
	MaxLimit   = 1_000_000 // of runs at once, and of a burst
	CountMost  = 100_000   // runs of one queue that are counted
	AheadMost  = 1000      // runs before another one that are counted
)

// FairUnit is what the pass of a key of weight 1 grows by with each run.
const FairUnit = 1 << 20

// Queue is a queue's settings and what stands in it.
type Queue struct {
	Name       string
	Paused     *Pause         // nil: it is not
	MaxRunning int32          // runs that have started and not finished; 0: no limit
	Rate       Rate           // of starts; zero: no limit
	Weight     int32          // its share among the queues, from 1
	Weights    map[string]int // of fair keys; those not named have 1

	Waiting   int32      // runs that wait for their start, counted up to CountMost
	Held      int32      // of them those that wait for a slot of their key or for their pipeline
	Running   int32      // runs that have an owner or wait on their way
	Oldest    time.Time  // when the oldest of them was queued; zero: none
	NextStart time.Time  // when the rate lets the next run start; zero: now, or no rate
	Keys      []QueueKey // the fair keys with the most waiting runs, ten at most
}

// QueueKey is a fair key of a queue.
type QueueKey struct {
	Key     string
	Waiting int32
	Weight  int32
}

// Pause says since when and by whom something is paused.
type Pause struct {
	At time.Time
	By string
}

// QueueChange is what SetQueue changes; nil members stay as they are.
type QueueChange struct {
	Paused     *bool
	MaxRunning *int32 // 0 lifts the limit
	Rate       *Rate  // zero lifts the limit
	Weight     *int32
	Weights    map[string]int // of the keys named; 1 is the default
	Actor      string
}

// Rate limits starts: one every so long, and Burst at once after a lull.
type Rate struct {
	Every time.Duration // 0: no limit
	Burst int32         // from 1
}

// ParseRate reads "10/m" as ten a minute: a number and s, m, h or d. Half of "1/2m" is
// said as "30/h". The burst is 1.
func ParseRate(text string) (Rate, error) {
	bad := func() (Rate, error) {
		return Rate{}, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "invalid_rate",
			Text: fmt.Sprintf("the rate %q is not a number of starts per second, minute, hour or day, such as 10/m", text),
		}
	}
	count, unit, ok := strings.Cut(text, "/")
	var n int64
	if _, err := fmt.Sscanf(count+"\n", "%d\n", &n); err != nil || !ok || n < 1 || n > MaxLimit || fmt.Sprint(n) != count {
		return bad()
	}
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	if per == 0 {
		return bad()
	}
	return Rate{Every: max(time.Microsecond, (per / time.Duration(n)).Truncate(time.Microsecond)), Burst: 1}, nil
}

// String is the rate as ParseRate reads it, in the largest unit that has a whole
// number; empty: no limit.
func (r Rate) String() string {
	if r.Every <= 0 {
		return ""
	}
	for _, u := range []struct {
		name string
		per  time.Duration
	}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}} {
		n := math.Round(float64(u.per) / float64(r.Every))
		if n >= 1 && (u.per/time.Duration(n)).Truncate(time.Microsecond) == r.Every {
			return fmt.Sprintf("%d/%s", int64(n), u.name)
		}
	}
	return fmt.Sprintf("%g/d", float64(24*time.Hour)/float64(r.Every))
}

// Allows tells how many starts the rate allows at now, for the theoretical
// arrival time tat (both in microseconds), and when the next one is due if none
// is. This is the generic cell rate algorithm of ITU-T I.371.
func (r Rate) Allows(now, tat int64) (n int64, next int64) {
	every, patience := r.Every.Microseconds(), r.patience()
	from := max(now, tat)
	if from-patience > now {
		return 0, from - patience
	}
	return (now+patience-from)/every + 1, 0
}

// patience is how long before its theoretical time a run may start.
func (r Rate) patience() int64 { return int64(max(r.Burst, 1)-1) * r.Every.Microseconds() }

// Started is the theoretical arrival time after n starts at now.
func (r Rate) Started(now, tat, n int64) int64 { return max(now, tat) + n*r.Every.Microseconds() }

// Gates are what new runs must not pass by.
type Gates struct {
	Queues    []string // paused or limited
	Pipelines []string // paused
}

// Standing is where a run stands and what holds it there.
type Standing struct {
	Run      *pipeline.Run    // without inputs and outputs
	Waits    bool             // it stands in a line
	UnderWay bool             // in that of the runs that have started before
	Queue    *Queue           // its settings; nil unless it stands in that queue. Waiting and the like are not counted
	Pipeline *Pause           // its pipeline is paused
	Held     HeldBy           // what it was set aside for
	Since    time.Time        // when it was queued
	Ahead    int32            // runs of its queue that go before it, counted up to AheadMost
	Running  int32            // runs that count for the queue's MaxRunning
	Holders  []pipeline.RunID // that hold the slots of its concurrency key, ten at most

	Due      time.Time         // the time of a parked run; zero: it has none
	Replica  ReplicaID         // its owner; empty: none
	Expires  time.Time         // the owner's lease; zero: it has no time
	Dead     bool              // the owner is known to be gone or its lease is over
	Replicas map[ReplicaID]int // the living owners of lanes, and how many runs each owns
}

// HeldBy is why a run in the queue was set aside.
type HeldBy int

// The reasons.
const (
	HeldNot      HeldBy = 0
	HeldSlot     HeldBy = 1 // all slots of its concurrency key are taken
	HeldPipeline HeldBy = 2 // its pipeline is paused
)

// KeySlot and QueueSlot are the names of limits in the table of slots.
func KeySlot(key string) string { return "key " + Clean(key) }

// QueueSlot is the name of a queue's limit.
func QueueSlot(name string) string { return "queue " + Clean(name) }

// QueueNamed checks the name of a queue.
func QueueNamed(name string) error {
	if pipeline.IsQueue(name) {
		return nil
	}
	return &pipeline.Error{
		Kind: pipeline.Invalid, Reason: "invalid_queue",
		Text: fmt.Sprintf("%q is not the name of a queue: 1 to 128 letters, digits and -_./:", name),
	}
}

// Check finds what is wrong with a change.
func (c *QueueChange) Check() error {
	bad := func(format string, args ...any) error {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: "invalid_limit", Text: fmt.Sprintf(format, args...)}
	}
	if n := c.MaxRunning; n != nil && (*n < 0 || *n > MaxLimit) {
		return bad("max_running is %d; it must be from 1 to %d, or 0 for no limit", *n, MaxLimit)
	}
	if r := c.Rate; r != nil && *r != (Rate{}) && (r.Every < time.Microsecond || r.Every > 366*24*time.Hour || r.Burst < 1 || r.Burst > MaxLimit) {
		return bad("the burst of a rate must be from 1 to %d", MaxLimit)
	}
	if w := c.Weight; w != nil && (*w < 1 || *w > MaxWeight) {
		return bad("the weight is %d; it must be from 1 to %d", *w, MaxWeight)
	}
	for key, w := range c.Weights {
		if key == "" || len(key) > MaxFairKey || w < 1 || w > MaxWeight {
			return bad("the weight of the key %q is %d; a weight must be from 1 to %d, a key 1 to %d bytes", key, w, MaxWeight, MaxFairKey)
		}
	}
	return nil
}

// EncodeWeights writes weights as JSON, those of 1 left out.
func EncodeWeights(m map[string]int) []byte {
	out := make(map[string]int, len(m))
	for k, w := range m {
		if w != 1 {
			out[Clean(k)] = w
		}
	}
	b, _ := json.Marshal(out) //nolint:errchkjson // texts and numbers
	return b
}

// DecodeWeights reads what EncodeWeights wrote.
func DecodeWeights(b []byte) (map[string]int, error) {
	var m map[string]int
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	return m, nil
}

// Stride is what the pass of a key grows by with each run.
func Stride(weight int) int64 { return FairUnit / int64(min(max(weight, 1), MaxWeight)) }

// PlaceOf is where a new run stands: its queue and fair key with the defaults filled in.
func PlaceOf(r *pipeline.Run) (queue, key string) {
	queue, key = r.Queue, r.FairKey
	if queue == "" {
		queue = pipeline.DefaultQueue
	}
	if key == "" {
		key = r.Pipeline
	}
	return Clean(queue), Clean(key)
}

// Placed makes of the place that a row names what its run was submitted with:
// defaults are empty.
func Placed(r *pipeline.Run) {
	if r.Queue == pipeline.DefaultQueue {
		r.Queue = ""
	}
	if r.FairKey == r.Pipeline {
		r.FairKey = ""
	}
}

// MayNotStart is the error of a claim by name of a run that a limit holds back.
func MayNotStart(id pipeline.RunID) error {
	return &pipeline.Error{
		Kind: pipeline.Conflict, Reason: "run_held",
		Text: fmt.Sprintf("run %s may not start yet: its queue or pipeline is paused, or a limit is reached; \"runs why %s\" says which", id, id),
	}
}
