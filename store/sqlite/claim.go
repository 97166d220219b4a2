package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	dueTimers = `DELETE FROM run_timer WHERE run_id IN
		(SELECT run_id FROM run_timer WHERE due_at <= ? ORDER BY due_at LIMIT ?) RETURNING priority, run_id`
	claimRun = `UPDATE run SET status = CASE WHEN status IN ('WAITING','PAUSED') THEN status ELSE 'RUNNING' END, lane_epoch = ?,
			started_at = coalesce(started_at, ?)
		WHERE run_id = ? AND lane_epoch IS NULL AND status IN ('QUEUED','WAITING','PAUSED') RETURNING ` + runColumns
	dropTimer  = `DELETE FROM run_timer WHERE run_id = ?`
	unqueueRun = `DELETE FROM run_queue WHERE run_id = ?`
	holdRun    = `UPDATE run_queue SET held = ? WHERE run_id = ?`
	takeSlot   = `INSERT INTO slot (key, run_id, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	countSlots = `SELECT count(*) FROM slot WHERE key = ?`
	isPaused   = `SELECT EXISTS (SELECT 1 FROM paused_pipeline WHERE pipeline = ?)`

	// openQueues are those that runs may start from, unless their limits say no.
	openQueues = `SELECT name, coalesce(max_running, 0), coalesce(every, 0), burst, weight, pass, tat, (SELECT max(pass) FROM queue) FROM queue
		WHERE paused_at IS NULL AND EXISTS (SELECT 1 FROM run_queue WHERE queue = name AND held = 0)`
	// standing walks along the index of a line.
	candidates = `SELECT run_id, priority, pass, pipeline, concurrency, concurrency_max FROM run_queue
		WHERE queue = ? AND held = 0 ORDER BY priority DESC, pass, run_id LIMIT ?`
	candidate = `SELECT run_id, priority, pass, pipeline, concurrency, concurrency_max, queue FROM run_queue WHERE run_id = ?`
	moveQueue = `UPDATE queue SET pass = max(pass, ?), tat = ? WHERE name = ?`
	moveClock = `UPDATE fair_clock SET pass = max(pass, ?) WHERE queue = ? AND priority = ?`
	sweepFair = `DELETE FROM fair_key WHERE (queue, priority, key) IN
		(SELECT queue, priority, key FROM fair_key WHERE queue = ?1 AND priority = ?2 AND pass <= ?3 ORDER BY pass LIMIT 512)`
)

// line is a queue that a claim may take from.
type line struct {
	name    string // empty: of the runs that are under way
	limit   int64  // of runs that are under way; 0: none
	rate    store.Rate
	tat     int64
	room    int64   // how many may start now
	pass    float64 // its place among the lines
	stride  float64
	next    []standing
	started int64
	clock   map[int64]int64 // the newest pass taken, by priority
}

// standing is a run in its line.
type standing struct {
	id       []byte
	priority int64
	pass     int64
	pipeline string
	key      sql.NullString
	most     int64
}

func (c *standing) scan(r *sql.Rows, more ...any) error {
	return r.Scan(append([]any{&c.id, &c.priority, &c.pass, &c.pipeline, &c.key, &c.most}, more...)...)
}

// before reports whether the head of l goes before that of o.
func (l *line) before(o *line) bool {
	switch a, b := &l.next[0], &o.next[0]; {
	case a.priority != b.priority:
		return a.priority > b.priority
	case l.name == "" || o.name == "":
		return l.name == ""
	default:
		return l.pass+l.stride < o.pass+o.stride
	}
}

// Claim implements store.Lane.
func (l *lane) Claim(ctx context.Context, n int) ([]*pipeline.Run, error) {
	if n <= 0 {
		return nil, nil
	}
	var runs []*pipeline.Run
	err := l.s.writer.do(ctx, "claim runs", func(t *tx) error {
		runs = nil
		if err := t.fence(l.epoch); err != nil {
			return err
		}
		if err := t.queueDue(n); err != nil {
			return err
		}
		for again := true; again && len(runs) < n; {
			lines, err := t.lines(n - len(runs))
			if err != nil {
				return err
			}
			var more []*pipeline.Run
			if more, again, err = t.takeFrom(l.epoch, lines, n-len(runs)); err != nil {
				return err
			}
			runs = append(runs, more...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return runs, nil
}

// lines reads up to n candidates of each line that runs may start from.
func (t *tx) lines(n int) ([]*line, error) {
	list := []*line{{room: int64(n)}}
	err := t.rows(openQueues, nil, func(r *sql.Rows) error {
		l := &line{room: int64(n)}
		var every, weight int64
		var newest float64
		if err := r.Scan(&l.name, &l.limit, &every, &l.rate.Burst, &weight, &l.pass, &l.tat, &newest); err != nil {
			return err
		}
		l.rate.Every = microseconds(every)
		l.stride = 1 / float64(weight)
		l.pass = max(l.pass, newest-1) // a queue that was idle has saved nothing up
		list = append(list, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, l := range list {
		if l.limit > 0 {
			var used int64
			if err := t.row(countSlots, []any{store.QueueSlot(l.name)}, &used); err != nil {
				return nil, err
			}
			l.room = min(l.room, l.limit-used)
		}
		if l.rate.Every > 0 {
			allowed, _ := l.rate.Allows(t.now.UnixMicro(), l.tat)
			l.room = min(l.room, allowed)
		}
		if l.room <= 0 {
			continue
		}
		err := t.rows(candidates, []any{l.name, n}, func(r *sql.Rows) error {
			var c standing
			err := c.scan(r)
			l.next = append(l.next, c)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// takeFrom owns up to n runs, each time the one whose turn it is, and sets aside
// those that may not start. If there were such, others may stand behind them.
func (t *tx) takeFrom(epoch int64, lines []*line, n int) (runs []*pipeline.Run, aside bool, err error) {
	for len(runs) < n {
		var l *line
		for _, x := range lines {
			if x.room > 0 && len(x.next) > 0 && (l == nil || x.before(l)) {
				l = x
			}
		}
		if l == nil {
			break
		}
		c := l.next[0]
		l.next = l.next[1:]
		run, err := t.start(epoch, l, &c)
		if err != nil {
			return nil, false, err
		}
		if run == nil {
			aside = true
			continue
		}
		runs = append(runs, run)
	}
	return runs, aside, t.moved(lines)
}

// moved writes down how far the lines have come.
func (t *tx) moved(lines []*line) error {
	for _, l := range lines {
		if l.started == 0 || l.name == "" {
			continue
		}
		tat := l.tat
		if l.rate.Every > 0 {
			tat = l.rate.Started(t.now.UnixMicro(), l.tat, l.started)
		}
		if _, err := t.exec(moveQueue, l.pass, tat, l.name); err != nil {
			return err
		}
		for priority, pass := range l.clock {
			if _, err := t.exec(moveClock, pass, l.name, priority); err != nil {
				return err
			}
			if _, err := t.exec(sweepFair, l.name, priority, pass); err != nil {
				return err
			}
		}
	}
	return nil
}

// start owns a run whose turn it is; nil: it may not start and was set aside.
func (t *tx) start(epoch int64, l *line, c *standing) (*pipeline.Run, error) {
	if l.name != "" {
		held, err := t.heldBy(c)
		if err != nil {
			return nil, err
		}
		if held != store.HeldNot {
			_, err := t.exec(holdRun, int(held), c.id)
			return nil, err
		}
	}
	if _, err := t.exec(unqueueRun, c.id); err != nil {
		return nil, err
	}
	run, err := t.claim(epoch, c.id)
	if err != nil || run == nil || l.name == "" {
		return run, err
	}
	l.room--
	l.started++
	l.pass += l.stride
	if l.clock == nil {
		l.clock = make(map[int64]int64)
	}
	l.clock[c.priority] = max(l.clock[c.priority], c.pass)
	if c.key.Valid {
		if _, err := t.exec(takeSlot, store.KeySlot(c.key.String), c.id, t.now.UnixMicro()); err != nil {
			return nil, err
		}
	}
	if l.limit > 0 {
		_, err = t.exec(takeSlot, store.QueueSlot(l.name), c.id, t.now.UnixMicro())
	}
	return run, err
}

// heldBy is why a run whose turn it is may not start.
func (t *tx) heldBy(c *standing) (store.HeldBy, error) {
	var paused bool
	if err := t.row(isPaused, []any{c.pipeline}, &paused); err != nil || paused {
		return store.HeldPipeline, err
	}
	if !c.key.Valid {
		return store.HeldNot, nil
	}
	var used int64
	if err := t.row(countSlots, []any{store.KeySlot(c.key.String)}, &used); err != nil || used >= c.most {
		return store.HeldSlot, err
	}
	return store.HeldNot, nil
}

// queueDue puts up to n parked runs whose time has come into the queue, so that
// they stand in line with the others.
func (t *tx) queueDue(n int) error {
	var due []queuedRun
	err := t.rows(dueTimers, []any{t.now.UnixMicro(), n}, func(r *sql.Rows) error {
		var q queuedRun
		err := r.Scan(&q.priority, &q.id)
		due = append(due, q)
		return err
	})
	if err != nil {
		return err
	}
	for _, q := range due {
		if _, err := t.exec(queueRun, q.priority, q.id); err != nil {
			return err
		}
	}
	return nil
}

// claim owns a queued or parked run; another gives nil.
func (t *tx) claim(epoch int64, id []byte) (*pipeline.Run, error) {
	var run *pipeline.Run
	err := t.rows(claimRun, []any{epoch, t.now.UnixMicro(), id}, func(r *sql.Rows) (err error) {
		run, err = scanRun(r, true)
		return err
	})
	if err == nil && run != nil && run.Status == pipeline.RunWaiting {
		_, err = t.exec(dropTimer, id)
	}
	return run, err
}

// ClaimRun implements store.Lane.
func (l *lane) ClaimRun(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error) {
	k, err := key(id)
	if err != nil {
		return nil, err
	}
	var run *pipeline.Run
	err = l.s.writer.do(ctx, "claim run "+string(id), func(t *tx) (err error) {
		run = nil
		if err := t.fence(l.epoch); err != nil {
			return err
		}
		var queue string
		var found []standing
		err = t.rows(candidate, []any{k[:]}, func(r *sql.Rows) error {
			found = append(found, standing{})
			return found[0].scan(r, &queue)
		})
		if err != nil {
			return err
		}
		if len(found) > 0 && queue != "" {
			run, err = t.startNamed(l.epoch, id, queue, &found[0])
			return err
		}
		if run, err = t.claim(l.epoch, k[:]); err != nil {
			return err
		}
		if run == nil {
			var status pipeline.RunStatus
			err := t.row(runStatus, []any{k[:]}, &status)
			if errors.Is(err, sql.ErrNoRows) {
				return runNotFound(id)
			}
			if err != nil {
				return err
			}
			return notQueued(id, status)
		}
		_, err = t.exec(unqueueRun, k[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	return run, nil
}

// startNamed owns a run that has not begun yet, if its queue lets it start.
func (t *tx) startNamed(epoch int64, id pipeline.RunID, queue string, c *standing) (*pipeline.Run, error) {
	held, err := t.heldBy(c)
	if err != nil {
		return nil, err
	}
	lines, err := t.lines(1)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		if l.name != queue || l.room <= 0 || held != store.HeldNot {
			continue
		}
		run, err := t.start(epoch, l, c)
		if err != nil {
			return nil, err
		}
		return run, t.moved([]*line{l})
	}
	return nil, store.MayNotStart(id)
}

func notQueued(id pipeline.RunID, status pipeline.RunStatus) error {
	return &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_not_queued", Text: fmt.Sprintf("run %s is neither queued nor parked, it is %s", id, status)}
}
