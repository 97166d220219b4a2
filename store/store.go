// Package store is the contract of durable storage: about fifteen verbs, each
// one legal transition of runs with its events, never a repository per table.
// Two children implement it, postgres for teams and sqlite for one machine,
// and store/storetest proves that they behave the same.
//
// All writes of a run's steps go through one Lane: a lease, one connection and
// one committer. A lane's Commit is one transaction that either records the
// whole Batch under the lane's fence or nothing. Reads and messages to a run
// need no lane.
package store

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ErrFenced is the error of a lane that has lost its lease: nothing of the
// batch was recorded, and nothing ever will be under this epoch.
var ErrFenced = errors.New("store: lane lost its lease")

// ReplicaID names one incarnation of a server process.
type ReplicaID string

// Store is durable storage. All methods may be called concurrently. Errors
// meant for callers are *pipeline.Error (NotFound, Conflict, Unavailable);
// a store that cannot be reached gives kind Unavailable.
type Store interface {
	Queues
	Keys
	Peers
	Hearing
	Keeper
	Archive
	Budgets
	Journals
	Live
	ModelStats

	// OpenLane takes a new lease. The lane must be renewed by Heartbeat.
	OpenLane(ctx context.Context, replica ReplicaID) (Lane, error)
	// Heartbeat renews the replica's leases, in one statement, and tells
	// whether anything waits for a lane.
	Heartbeat(ctx context.Context, replica ReplicaID) (Pulse, error)
	// Reclaim removes dead lanes and queues the runs they owned again; it
	// returns how many runs that were. Those whose owner is not known to be gone
	// get a message of kind MessageExpired.
	Reclaim(ctx context.Context) (int, error)

	// Run reads one run, with inputs and outputs.
	Run(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error)
	// Runs lists runs, newest first, by keyset. Inputs and outputs are not read.
	Runs(ctx context.Context, q Query) (Page, error)
	// Events yields the run's events after the given sequence number, in order.
	Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error]

	// PutPlan makes a compiled plan durable; repeating it changes nothing.
	PutPlan(ctx context.Context, p Plan) error
	// Plan reads a plan by digest.
	Plan(ctx context.Context, d pipeline.Digest) (*Plan, error)
	// PutPipeline registers a version of a named pipeline. The same version
	// with another digest is a Conflict.
	PutPipeline(ctx context.Context, p Pipeline) error
	// Pipeline reads a version of a pipeline; an empty version means the newest registered.
	Pipeline(ctx context.Context, id, version string) (*Pipeline, error)
	// Pipelines lists the newest version of each pipeline by id, after a given id.
	Pipelines(ctx context.Context, after string, limit int) ([]Pipeline, error)
	// Versions lists the versions of one pipeline, newest first.
	Versions(ctx context.Context, id string) ([]Pipeline, error)

	// PutBundle makes the files of a pipeline durable, under the digest that
	// pipeline.Bundle gives; repeating it changes nothing. More than MaxBundle
	// bytes, or another digest, are Invalid.
	PutBundle(ctx context.Context, d pipeline.Digest, b pipeline.Bundle) error
	// Bundle reads what PutBundle stored; the empty digest names the empty bundle.
	Bundle(ctx context.Context, d pipeline.Digest) (pipeline.Bundle, error)
	// PutBlob stores content of a run and returns the digest that names it; it is
	// kept as long as the run is. More than MaxBlob bytes are Invalid.
	PutBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error)
	// Blob reads content of a run.
	Blob(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error)

	// Approval reads one approval.
	Approval(ctx context.Context, id pipeline.ApprovalID) (*pipeline.Approval, error)
	// Approvals lists approvals, newest first, by keyset.
	Approvals(ctx context.Context, q ApprovalQuery) (ApprovalPage, error)
	// Decide adds a decision to an approval, as pipeline.Approval.Decide says, in
	// one transaction that lets one of several callers win. When that settles
	// it, the run gets a message of kind MessageDecision whose body is the
	// decision as pipeline.AppendDecision writes it. An approval whose run has
	// finished gives Conflict. A decision without a time is made now.
	Decide(ctx context.Context, id pipeline.ApprovalID, d pipeline.Decision) (*pipeline.Approval, error)

	pipeline.ResultCache // a crash of the database may lose the last values

	// Send leaves a message for a run, whoever owns it, and rings its bell; a
	// parked run is queued by it. A run that has finished gives Conflict, an
	// unknown one NotFound. With a key that is already used for the run, nothing is
	// left: nil for an equal message, also once the run has finished, Conflict
	// (idempotency_key_reused) for another one.
	Send(ctx context.Context, run pipeline.RunID, m Message) error
	// Sent reports whether the message was sent to the run before, with the key that
	// it has; the error is as Send's.
	Sent(ctx context.Context, run pipeline.RunID, m Message) (bool, error)
	// Inbox reads the messages of the given runs, oldest first.
	Inbox(ctx context.Context, runs []pipeline.RunID) ([]Message, error)

	// AppendLogs stores log chunks. A crash of the database may lose the last
	// fraction of a second.
	AppendLogs(ctx context.Context, chunks []LogChunk) error
	// Logs yields log chunks of a run in the order of their writing.
	Logs(ctx context.Context, q LogQuery) iter.Seq2[LogChunk, error]

	Schedules

	// Ring tells every listener, here and in other processes, that runs have
	// changed. It never blocks and never fails; a lost bell is harmless.
	Ring(b Bell)
	// Listen calls f for every bell until ctx ends. f must not block. When
	// bells may have been lost it gets a bell with All set.
	Listen(ctx context.Context, f func(Bell)) error

	// Ping checks that the store can be written and read.
	Ping(ctx context.Context) error
	// Close releases everything; lanes must be closed before.
	Close() error
}

// Lane is a lease on the right to write runs. Its methods are called by one
// goroutine at a time.
type Lane interface {
	ID() int64
	Epoch() int64
	// Commit records the batch in one transaction, or returns ErrFenced and
	// records nothing. After any other error the outcome is unknown: calling
	// Commit again with the same batch is safe and records it once. It rings for
	// approvals that the batch has asked or withdrawn and for parked runs that it
	// has queued at once; all other bells are the caller's.
	Commit(ctx context.Context, b *Batch) (Result, error)
	// Claim takes up to n runs that are queued, or parked with their time come,
	// in fair order, and owns them. A run that was parked keeps its status WAITING
	// until a Finish of the batch says otherwise.
	Claim(ctx context.Context, n int) ([]*pipeline.Run, error)
	// ClaimRun takes this one run, queued or parked, and owns it, wherever it
	// stands in the queue. A run that is neither gives Conflict, an unknown one
	// NotFound.
	ClaimRun(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error)
	// Release gives up the lease; runs still owned are queued again at once.
	Release(ctx context.Context) error
}

// Batch is what a lane records at once. It touches only rows of its own runs.
type Batch struct {
	Create   []Create
	Append   []Append
	Finish   []Finish
	Park     []Park
	Ask      []*pipeline.Approval  // new approvals of runs of this batch
	Withdraw []pipeline.ApprovalID // approvals whose steps no longer ask; settled ones stay as they are
	Yield    []pipeline.RunID      // runs given back to the queue
	Consume  []MessageID           // inbox messages whose effect is in Append
}

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool {
	return len(b.Create)+len(b.Append)+len(b.Finish)+len(b.Park)+len(b.Ask)+len(b.Withdraw)+len(b.Yield)+len(b.Consume) == 0
}

// Create is a new run. Its run_created event (and more) stands in Events.
// With an idempotency key that is already used, nothing of it is recorded and
// the Result says whose it is.
type Create struct {
	Run            *pipeline.Run // Status RUNNING: this lane owns it; QUEUED: it waits in the queue
	IdempotencyKey string        // empty: none
	RequestDigest  pipeline.Digest
	Events         []pipeline.Event
}

// Append is new events of one owned run, in order of Seq.
type Append struct {
	Run    pipeline.RunID
	Events []pipeline.Event
}

// Finish updates the run's row: its status, reason, outputs, error, usage and
// times are taken from Run. A final status frees the run from its lane and
// withdraws its open approvals.
type Finish struct {
	Run *pipeline.Run
}

// Park lets go of a run that only waits: it has no lane until a message comes or
// its time has come. Its row is updated as by Finish; its status becomes WAITING. A
// message that came before, and is not among Consume, queues it at once. A run
// whose status is PAUSED keeps that, and only the messages that WakesPaused names
// queue it.
type Park struct {
	Run  *pipeline.Run
	Wake time.Time // by the store's clock; zero: only a message wakes it
}

// Result tells the fate of each Create with an idempotency key, by index:
// Existing is empty if it was recorded, else the run that used the key first;
// Mismatch says that the first request was a different one.
type Result struct {
	Creates []CreateResult
}

// CreateResult is one entry of Result.
type CreateResult struct {
	Existing pipeline.RunID
	Mismatch bool
}

// Pulse is what a heartbeat has seen.
type Pulse struct {
	Expired bool // some lease has expired: Reclaim
	Queued  bool // the queue holds runs, or the time of a parked one has come: Claim
	Lost    bool // one of this replica's own leases is gone
	// NextDue is when the time of the next parked run comes, or a rate lets the
	// next run of a queue start, always later than now; zero: of none.
	NextDue time.Time
	// Now is the store's clock when it answered.
	Now time.Time
	// Fires says that some schedule is due: TakeSchedules. Else FireIn is how long
	// it takes until the next one is, by the store's clock; 0: none is set.
	Fires  bool
	FireIn time.Duration
	Gates  Gates // what new runs must not pass by
}

// Query selects runs.
type Query struct {
	Status   []pipeline.RunStatus // any of these; empty: all
	Pipeline string               // exact id; empty: all
	Labels   map[string]string    // all of these
	Parent   pipeline.RunID       // begun by this run; empty: all
	Forked   pipeline.RunID       // that use the records of this run; empty: all
	Before   pipeline.RunID       // keyset: only older runs
	Limit    int
}

// Page is one page of runs; More says that older ones follow.
type Page struct {
	Runs []*pipeline.Run
	More bool
}

// Plan is a compiled plan with the source it came from.
type Plan struct {
	Digest   pipeline.Digest
	Source   []byte // the YAML text
	Compiled []byte // JSON of pipeline.Plan
	Format   int
}

// Pipeline is one registered version of a pipeline.
type Pipeline struct {
	ID          string
	Version     string
	Name        string
	Description string
	PlanDigest  pipeline.Digest
	CreatedAt   time.Time
}

// ApprovalQuery selects approvals.
type ApprovalQuery struct {
	Status pipeline.ApprovalStatus // empty: all
	Run    pipeline.RunID          // empty: of all runs
	Before pipeline.ApprovalID     // keyset: only older ones
	Limit  int
}

// ApprovalPage is one page of approvals; More says that older ones follow.
type ApprovalPage struct {
	Approvals []*pipeline.Approval
	More      bool
}

// The kinds of message.
const (
	MessageCancel   = "cancel"
	MessageSignal   = "signal"   // body: {"name": ..., "data": ...}
	MessageSteer    = "steer"    // something said to an agent; body: {"step": path, "text": ...}
	MessageDecision = "decision" // body: a decision as pipeline.AppendDecision writes it
	MessageFiles    = "files"    // files that a wait looks for have come
	MessageWorker   = "worker"   // a worker that a step waits for may have room
	MessageAttempt  = "attempt"  // what the holder of an attempt says of it; the executor's own body
	MessageExpired  = "expired"  // from Reclaim: the lease of the run's owner has expired, but the owner may live
)

// MessageID names an inbox message.
type MessageID string

// Message is something said to a run from outside its lane.
type Message struct {
	ID    MessageID // given by Send when empty
	Run   pipeline.RunID
	Kind  string // MessageCancel and so on
	Actor string
	Body  []byte // JSON, may be empty
	At    time.Time
	Key   string // of Send: an idempotency key of the sender's, good for the run; empty: none
}

// LogChunk is a piece of a step's log.
type LogChunk struct {
	Run     pipeline.RunID
	Path    pipeline.Path
	Attempt int32
	N       int32 // counts from 1 within (run, path, attempt)
	At      time.Time
	Stream  string // stdout, stderr or system
	Text    string
	Cursor  int64 // given by the store: grows within a run; resume a read after it
}

// LogQuery selects log chunks.
type LogQuery struct {
	Run   pipeline.RunID
	Path  pipeline.Path // empty: all steps
	After int64         // skip chunks up to this cursor
	Limit int           // 0: no limit
}

// Bell says that runs have changed.
type Bell struct {
	Runs      []pipeline.RunID // these have new events
	Logs      []pipeline.RunID // these have new log chunks
	Inbox     []pipeline.RunID // these have messages
	Approvals bool             // some approval was asked, decided or withdrawn
	Queued    bool             // the queue has grown
	Gates     bool             // queues or pipelines were paused, resumed or limited
	All       bool             // bells were lost: look at everything

	// Created and Appended are what a lane of this very process has committed,
	// so that its listeners need not read it: runs as created, and events that
	// must not be changed. Bells from other processes never hold them. A run
	// whose events stand here is not named in Runs for this process's sake.
	Created  []*pipeline.Run
	Appended []Append
}
