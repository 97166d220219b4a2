package executor

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// watcher looks for files that steps wait for, of runs in memory and of parked
// ones. Its goroutine lives only while there is something to look for.
type watcher struct {
	ex *Executor

	mu      sync.Mutex
	watched map[pipeline.RunID]map[pipeline.Path]*watched
	running bool
	bell    chan struct{} // capacity 1: something was added
}

// watched is a wait for files.
type watched struct {
	lane    *lane // that had the run at last
	run     pipeline.RunID
	path    pipeline.Path
	dir     string
	pattern string
	count   int
	poll    time.Duration
	next    time.Time
	until   time.Time // of a parked run: whoever claims it then looks himself; zero: no end
}

func newWatcher(ex *Executor) *watcher {
	return &watcher{ex: ex, watched: map[pipeline.RunID]map[pipeline.Path]*watched{}, bell: make(chan struct{}, 1)}
}

// add looks for the files of a step from now on, until they are found.
func (w *watcher) add(r *runState, path pipeline.Path, wait *pipeline.Waiting) {
	e := &watched{
		lane: r.lane, run: r.run.ID, path: path, dir: r.workspace,
		pattern: wait.Files, count: wait.Count, poll: wait.Poll, next: time.Now().Add(wait.Poll),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[e.run] == nil {
		w.watched[e.run] = map[pipeline.Path]*watched{}
	}
	w.watched[e.run][path] = e
	if !w.running {
		w.running = true
		w.ex.tasks.Go(func() { w.run(w.ex.work) })
	}
	nudge(w.bell)
}

// linger says how long to look for the files of a run that is parked now.
func (w *watcher) linger(run pipeline.RunID, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.watched[run] {
		e.until = until
	}
}

// drop ends the looking for the files of a step.
func (w *watcher) drop(run pipeline.RunID, path pipeline.Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watched[run], path)
}

// forget ends the looking for a run's files.
func (w *watcher) forget(run pipeline.RunID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watched, run)
}

func (w *watcher) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.bell:
		case <-timer.C:
		}
		now := time.Now()
		look, next, more := w.pending(now)
		for _, e := range look {
			files, fail := listFor(e.dir, e.pattern)
			if fail != nil || len(files) >= e.count {
				w.found(e)
			}
		}
		if !more {
			return
		}
		timer.Reset(time.Until(next))
	}
}

// pending gives the waits to look after now and when to look again; without any
// left, the goroutine must end.
func (w *watcher) pending(now time.Time) (look []*watched, next time.Time, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for run, list := range w.watched {
		for path, e := range list {
			if !e.until.IsZero() && now.After(e.until) {
				delete(list, path)
				continue
			}
			if !e.next.After(now) {
				look = append(look, e)
				e.next = now.Add(e.poll)
			}
			if next.IsZero() || e.next.Before(next) {
				next = e.next
			}
		}
		if len(list) == 0 {
			delete(w.watched, run)
		}
	}
	more = len(w.watched) > 0
	w.running = more
	return look, next, more
}

// found tells a run that the files are there; one that is parked is woken.
func (w *watcher) found(e *watched) {
	w.mu.Lock()
	current := w.watched[e.run][e.path] == e
	if current {
		delete(w.watched[e.run], e.path)
	}
	w.mu.Unlock()
	if !current {
		return
	}
	e.lane.post(func() {
		r := e.lane.runs[e.run]
		if r == nil || r.parked {
			w.ex.wakeForFiles(e.run)
			return
		}
		r.do(func() {
			for _, wait := range r.m.Waits() {
				if wait.Path == e.path {
					r.look(e.path, wait.Def)
				}
			}
		})
	})
}

// wakeForFiles wakes a parked run whose files have come.
func (e *Executor) wakeForFiles(run pipeline.RunID) {
	e.tasks.Go(func() {
		err := e.cfg.Store.Send(e.work, run, store.Message{Kind: store.MessageFiles, Actor: string(e.cfg.Replica)})
		if err != nil && pipeline.KindOf(err) != pipeline.Conflict && e.work.Err() == nil {
			e.log.Warn("run not woken for its files; it looks for them within minutes", "run", run, "err", err)
		}
	})
}

// listFor lists the files in a folder that a wait looks for: none, if their
// folder is not there yet.
func listFor(dir, pattern string) ([]string, *pipeline.Failure) {
	ev := evaluation{dir: dir}
	if _, err := ev.local(pattern); err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "wait.files: %v", err)
	}
	files, err := ev.listFiles(pattern)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "wait.files: %v", err)
	}
	return files, nil
}
