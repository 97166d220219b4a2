package pipeline

import (
	"strings"
	"time"
	"unicode"
)

// DefaultQueue is the queue of runs that name none.
const DefaultQueue = "default"

// Concurrency lets at most Max runs of a key be under way at the same time,
// those that wait on their way included. The zero value sets no bound.
type Concurrency struct {
	Key string
	Max int32
}

// ConcurrencySettings are settings.concurrency: the key is a template over the
// inputs, evaluated when a run is submitted. An empty key sets no bound.
type ConcurrencySettings struct {
	Key Template `json:"key"`
	Max int      `json:"max"`
}

// Cause is one reason why a run is where it is.
type Cause struct {
	Code    string    // snake_case, stable
	Message string    // for people: what it is, and what to do if something can be done
	Since   time.Time // zero: not known
	Until   time.Time // when it is over by itself; zero: not known
	Refs    []Ref
}

// Ref names something that a cause speaks of.
type Ref struct {
	Kind string // run, approval, queue, pipeline, step, replica, signal, worker
	ID   string
}

// maxQueueName is how many bytes the name of a queue may have.
const maxQueueName = 128

// IsQueue reports whether name can be the name of a queue: 1 to 128 letters,
// digits and -_./:
func IsQueue(name string) bool {
	if name == "" || len(name) > maxQueueName {
		return false
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./:", r) {
			return false
		}
	}
	return true
}
