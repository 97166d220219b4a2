package pipeline

import "time"

// CommandAction is the key by which workers are told to run a program: that of
// command steps, of skills and of agents that are programs.
const CommandAction = "command"

// WaitWorker is what a step waits for that no connected worker can take yet.
const WaitWorker = "worker"

// The reasons of step_retrying where an attempt was not the step's own failure:
// its worker is gone, or had no room for it.
const (
	ReasonWorkerLost     = "worker_lost"
	ReasonWorkerDeclined = "worker_declined"
)

// Worker is a process that carries out steps for a server, on another machine or
// in another language, as it introduces itself and as the server sees it.
type Worker struct {
	Name        string
	Incarnation string // of its process
	Version     string // of its software
	Labels      []string
	Slots       int32        // attempts at once
	Resources   Resources    // zero members: without a bound
	Runs        []string     // keys of the server's own actions that it can carry out
	Actions     []ActionSpec // that it brings
	Held        []string     // tokens of the attempts that it holds
	Draining    bool

	Busy        int32 // slots that are taken, by whatever server
	Used        Resources
	Status      string          // connected, draining, lost
	Attempts    []WorkerAttempt // that it carries out for this server
	ConnectedAt time.Time
	HeardAt     time.Time
}

// The states of a worker, as a server sees it.
const (
	WorkerConnected = "connected"
	WorkerDraining  = "draining"
	WorkerLost      = "lost" // its stream has broken; its attempts are waited for
)

// WorkerAttempt is an attempt that a worker carries out.
type WorkerAttempt struct {
	Run     RunID
	Path    Path
	Attempt int32
	Since   time.Time
}

// WorkerWant is a step in line for a worker: each that is connected and could
// take it is busy.
type WorkerWant struct {
	Path   Path
	Labels []string
	Action string // that the worker must carry out
}

// WorkerFile is a file that travels to a worker or comes back, by its content.
type WorkerFile struct {
	Name   string // relative to the working folder, with slashes
	Digest Digest
	Size   int64
}

// Assignment is an attempt that a worker is to carry out.
type Assignment struct {
	Token         string
	Run           RunID
	Path          Path
	Attempt       int32
	Key           string // idempotency key
	Action        string
	Parameters    map[string]any
	Env           map[string]string // the step's own variables
	Secrets       map[string]string // texts that must not come to light, by name
	Timeout       time.Duration     // 0: none
	Sandbox       *Sandbox
	Resources     *Resources
	Bundle        Digest       // of files for reading only; empty: none
	BundleMark    string       // what Parameters and Env call their folder
	Uploads       Digest       // of files for the working folder; empty: none
	Files         []WorkerFile // of the run, for the working folder
	Collect       []string     // patterns of files that come back
	CollectFields []string     // fields of the output that name files which come back; * is every item of a list
}

// WorkerOrder is what a server says to a worker; one member is set.
type WorkerOrder struct {
	Assign      *Assignment
	Cancel      string // a token
	Acknowledge string // a token
	Drain       bool
	Peers       []string
}

// WorkerWord is what a worker says to a server; one member is set.
type WorkerWord struct {
	Heartbeat *WorkerLoad
	Held      []string // tokens
	Log       *WorkerLog
	Result    *WorkerResult
	Decline   *WorkerDecline
	Drain     bool
}

// WorkerLoad is what a worker has taken, of whatever server.
type WorkerLoad struct {
	Busy int32
	Used Resources
}

// WorkerLog is a piece of an attempt's output.
type WorkerLog struct {
	Token, Stream, Text string
	N                   int32 // counts from 1 within the attempt
}

// WorkerDecline gives back an attempt.
type WorkerDecline struct {
	Token, Reason string
	Begun         bool // it may have had an effect
}

// WorkerResult is how an attempt ended.
type WorkerResult struct {
	Token  string
	Output any
	Error  *Failure
	Usage  *Usage
	Model  string
	Files  []WorkerFile // that come back
}

// WorkerWelcome is what a server tells a worker that it takes in.
type WorkerWelcome struct {
	Heartbeat time.Duration // how often the worker is heard of at least
	Peers     []string      // addresses of all servers that share the work
}
