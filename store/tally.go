package store

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Tally gathers the figures of queues. Callers outside the room do not need it.
type Tally struct {
	list []Queue
	at   map[string]int
	all  bool // also queues that have no row
}

// keysMost is how many fair keys a queue shows.
const keysMost = 10

// NewTally begins with the settings of the queues; name, unless it is empty, is
// the only one that counts, with the defaults where it has no row.
func NewTally(list []Queue, name string) *Tally {
	t := &Tally{list: list, at: make(map[string]int, len(list)), all: name == ""}
	for i := range list {
		t.at[list[i].Name] = i
	}
	if name != "" && len(list) == 0 {
		t.add(name)
	}
	return t
}

func (t *Tally) add(name string) *Queue {
	t.at[name] = len(t.list)
	t.list = append(t.list, Queue{Name: name, Weight: 1})
	return &t.list[len(t.list)-1]
}

func (t *Tally) queue(name string) *Queue {
	if i, ok := t.at[name]; ok {
		return &t.list[i]
	}
	if !t.all {
		return nil
	}
	return t.add(name)
}

// Waiting counts the runs of one fair key.
func (t *Tally) Waiting(queue, key string, n, held int32, oldest time.Time) {
	q := t.queue(queue)
	if q == nil {
		return
	}
	q.Waiting += n
	q.Held += held
	if q.Oldest.IsZero() || oldest.Before(q.Oldest) {
		q.Oldest = oldest
	}
	q.Keys = append(q.Keys, QueueKey{Key: key, Waiting: n, Weight: int32(max(1, q.Weights[key]))})
}

// Running counts the runs of a queue that have started.
func (t *Tally) Running(queue string, n int32) {
	if q := t.queue(queue); q != nil {
		q.Running += n
	}
}

// Queues are the queues with what was counted, by name.
func (t *Tally) Queues() []Queue {
	for i := range t.list {
		q := &t.list[i]
		slices.SortFunc(q.Keys, func(a, b QueueKey) int {
			return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), strings.Compare(a.Key, b.Key))
		})
		q.Keys = q.Keys[:min(len(q.Keys), keysMost)]
		if q.Waiting == 0 {
			q.NextStart = time.Time{}
		}
	}
	slices.SortFunc(t.list, func(a, b Queue) int { return strings.Compare(a.Name, b.Name) })
	return t.list
}

// SetRate fills in the rate as its row has it, and when it lets the next run
// start. Callers outside the room do not need it.
func (q *Queue) SetRate(every time.Duration, tat int64, now time.Time) {
	q.Rate.Every = every
	if every <= 0 {
		q.Rate = Rate{}
		return
	}
	if n, next := q.Rate.Allows(now.UnixMicro(), tat); n == 0 {
		q.NextStart = time.UnixMicro(next).UTC()
	}
}
