package executor

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	logDelay   = 50 * time.Millisecond // how long a line may wait for others
	logPending = 4 << 20               // bytes that wait before writers do
)

// logBook gathers what steps print and stores it in groups.
type logBook struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	pending []store.LogChunk
	size    int
	written *sync.Cond
	gen     int64         // of the group that gathers
	done    int64         // the newest group stored, or given up
	bell    chan struct{} // capacity 1: something is pending
	hurry   chan struct{} // capacity 1: somebody waits for it
}

func newLogBook(s store.Store, log *slog.Logger, now func() time.Time) *logBook {
	b := &logBook{store: s, log: log, now: now, gen: 1, bell: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	b.written = sync.NewCond(&b.mu)
	return b
}

// run stores groups until ctx ends and nothing is pending.
func (b *logBook) run(ctx context.Context) {
	for {
		select {
		case <-b.bell:
		case <-ctx.Done():
			b.save(context.WithoutCancel(ctx))
			return
		}
		select {
		case <-time.After(logDelay):
		case <-b.hurry:
		case <-ctx.Done():
		}
		b.save(context.WithoutCancel(ctx))
	}
}

// save stores the group that has gathered.
func (b *logBook) save(ctx context.Context) {
	b.mu.Lock()
	chunks, gen := b.pending, b.gen
	b.pending, b.size = nil, 0
	b.gen++
	b.mu.Unlock()
	if len(chunks) > 0 {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := b.store.AppendLogs(ctx, chunks); err != nil {
			b.log.Warn("log lines lost", "chunks", len(chunks), "err", err)
		}
		cancel()
		seen := map[pipeline.RunID]bool{}
		var bell store.Bell
		for i := range chunks {
			if id := chunks[i].Run; !seen[id] {
				seen[id] = true
				bell.Logs = append(bell.Logs, id)
			}
		}
		b.store.Ring(bell)
	}
	b.mu.Lock()
	b.done = gen
	b.written.Broadcast()
	b.mu.Unlock()
}

// nudge puts a token into a channel of capacity 1.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// logWriter numbers the chunks of one attempt.
type logWriter struct {
	book   *logBook
	chunk  store.LogChunk
	redact *redactor
	last   int64 // the group of the newest chunk
	goesOn bool  // the attempt was laid down meanwhile: the numbers go on
	first  sync.Once

	mu   sync.Mutex
	rest map[string]string // by stream: what may be the beginning of a secret
}

func (b *logBook) writer(run pipeline.RunID, path pipeline.Path, attempt int32, red *redactor) *logWriter {
	return &logWriter{book: b, chunk: store.LogChunk{Run: run, Path: path, Attempt: attempt}, redact: red}
}

// write adds a chunk. It waits only when the store cannot keep up.
func (w *logWriter) write(stream, text string) {
	if !w.redact.empty() {
		w.mu.Lock()
		if w.rest == nil {
			w.rest = map[string]string{}
		}
		text, w.rest[stream] = w.redact.pass(w.rest[stream]+text, false)
		w.mu.Unlock()
	}
	if text != "" {
		w.put(stream, text)
	}
}

func (w *logWriter) put(stream, text string) {
	b := w.book
	w.first.Do(func() {
		if w.goesOn {
			w.chunk.N = b.newest(&w.chunk)
		}
	})
	b.mu.Lock()
	for b.size > logPending {
		b.written.Wait()
	}
	w.chunk.N++
	c := w.chunk
	c.Stream, c.Text = stream, text
	w.last = b.add(c)
	b.mu.Unlock()
	nudge(b.bell)
}

// newest is the number of the newest stored chunk of an attempt.
func (b *logBook) newest(of *store.LogChunk) int32 {
	n := int32(0)
	for c, err := range b.store.Logs(context.Background(), store.LogQuery{Run: of.Run, Path: of.Path}) {
		if err != nil {
			b.log.Warn("log lines of an attempt that goes on are numbered anew", "run", of.Run, "step", of.Path, "err", err)
			break
		}
		if c.Attempt == of.Attempt && c.N < ownLines {
			n = max(n, c.N)
		}
	}
	return n
}

// add takes a chunk into the group that gathers, and tells which that is. The
// caller holds mu.
func (b *logBook) add(c store.LogChunk) int64 {
	c.At = b.now().UTC()
	b.pending = append(b.pending, c)
	b.size += len(c.Text) + 64
	return b.gen
}

// keep takes a chunk that was numbered elsewhere, and tells in which group.
func (b *logBook) keep(c store.LogChunk) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer nudge(b.bell)
	return b.add(c)
}

// flush returns when everything written is stored.
func (w *logWriter) flush() {
	for _, stream := range slices.Sorted(maps.Keys(w.rest)) {
		if text := w.redact.text(w.rest[stream]); text != "" {
			w.put(stream, text)
		}
	}
	clear(w.rest)
	w.book.await(w.last)
}

// await returns when that group is stored; 0: at once.
func (b *logBook) await(gen int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done >= gen {
		return
	}
	nudge(b.hurry)
	nudge(b.bell)
	for b.done < gen {
		b.written.Wait()
	}
}
