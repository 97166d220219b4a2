package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/store"
)

// lane is a lease whose life is a file lock.
type lane struct {
	s     *Store
	id    int64
	epoch int64
	lock  *store.FileLock
}

func (l *lane) ID() int64    { return l.id }
func (l *lane) Epoch() int64 { return l.epoch }

func (s *Store) lockPath(epoch int64) string {
	return filepath.Join(s.lanesDir(), strconv.FormatInt(epoch, 10)+".lock")
}

const (
	listLanes   = `SELECT lane FROM lane_lease ORDER BY lane`
	insertLease = `INSERT INTO lane_lease (lane, replica, opened_at) VALUES (?, ?, ?) RETURNING epoch`
)

// OpenLane implements store.Store.
func (s *Store) OpenLane(ctx context.Context, replica store.ReplicaID) (store.Lane, error) {
	l := &lane{s: s, id: 1}
	err := s.writer.do(ctx, "open a lane", func(t *tx) error {
		l.id = 1 // the lowest number that is free
		err := t.rows(listLanes, nil, func(r *sql.Rows) error {
			var used int64
			if err := r.Scan(&used); err != nil {
				return err
			}
			if used == l.id {
				l.id++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := t.row(insertLease, []any{l.id, text(replica), t.now.UnixMicro()}, &l.epoch); err != nil {
			return err
		}
		// Locked before the row can be seen. Reclaim looks at locks inside its
		// own transaction, so it cannot come between.
		l.lock, err = store.LockFile(ctx, s.lockPath(l.epoch), busyTimeout)
		return err
	})
	if err != nil {
		if l.lock != nil {
			l.lock.Release()
		}
		return nil, storeError("open a lane", err)
	}
	s.mu.Lock()
	s.lanes[l.epoch] = l
	s.mu.Unlock()
	return l, nil
}

const (
	deleteLease = `DELETE FROM lane_lease WHERE epoch = ?`
	ownedRuns   = `SELECT run_id, priority FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND lane_epoch = ?`
	queueRun    = `INSERT INTO run_queue (priority, run_id) VALUES (?, ?) ON CONFLICT DO NOTHING`
	releaseRuns = `UPDATE run SET status = 'QUEUED', lane_epoch = NULL
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND lane_epoch = ?`
)

// queuedRun is a row of the line of runs that are under way.
type queuedRun struct {
	priority int64
	id       []byte
}

// drop removes a lease and queues its runs again; it returns how many.
func (t *tx) drop(epoch int64) (int, error) {
	if n, err := t.exec(deleteLease, epoch); err != nil || n == 0 {
		return 0, err
	}
	var runs []queuedRun
	err := t.rows(ownedRuns, []any{epoch}, func(r *sql.Rows) error {
		var q queuedRun
		err := r.Scan(&q.id, &q.priority)
		runs = append(runs, q)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, q := range runs {
		if _, err := t.exec(queueRun, q.priority, q.id); err != nil {
			return 0, err
		}
	}
	_, err = t.exec(releaseRuns, epoch)
	return len(runs), err
}

// Release implements store.Lane; repeating it changes nothing.
func (l *lane) Release(ctx context.Context) error {
	s, n := l.s, 0
	err := s.writer.do(ctx, "release a lane", func(t *tx) (err error) {
		n, err = t.drop(l.epoch)
		return err
	})
	if err != nil {
		return err
	}
	s.forget(l)
	if n > 0 {
		s.Ring(store.Bell{Queued: true})
	}
	return nil
}

// forget frees the lane's lock; others may take its runs if it still has any.
func (s *Store) forget(l *lane) {
	s.mu.Lock()
	_, held := s.lanes[l.epoch]
	delete(s.lanes, l.epoch)
	s.mu.Unlock()
	if held {
		os.Remove(s.lockPath(l.epoch))
		l.lock.Release()
	}
}

func (s *Store) own(epoch int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.lanes[epoch]
	return ok
}

const listEpochs = `SELECT epoch FROM lane_lease ORDER BY epoch`

// Reclaim implements store.Store.
func (s *Store) Reclaim(ctx context.Context) (int, error) {
	total := 0
	dead := map[string]*store.FileLock{} // by their files
	defer func() {
		for _, l := range dead {
			l.Release()
		}
	}()
	err := s.writer.do(ctx, "reclaim lanes", func(t *tx) error {
		total = 0
		var epochs []int64
		err := t.rows(listEpochs, nil, func(r *sql.Rows) error {
			var e int64
			err := r.Scan(&e)
			epochs = append(epochs, e)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range epochs {
			if s.own(e) {
				continue
			}
			path := s.lockPath(e)
			lock, err := store.TryLockFile(path)
			if errors.Is(err, store.ErrFileLocked) {
				continue
			}
			if err != nil {
				return err
			}
			dead[path] = lock
			n, err := t.drop(e)
			if err != nil {
				return err
			}
			total += n
		}
		return nil
	})
	if err != nil {
		return 0, storeError("reclaim lanes", err)
	}
	for path := range dead {
		os.Remove(path)
	}
	s.sweepLocks(ctx)
	if total > 0 {
		s.Ring(store.Bell{Queued: true})
	}
	return total, nil
}

const leaseThere = `SELECT count(*) FROM lane_lease WHERE epoch = ?`

// sweepLocks removes free lock files without a lease: their owner died while
// it opened or released the lane.
func (s *Store) sweepLocks(ctx context.Context) {
	for _, e := range s.freeLocks() {
		_ = s.writer.do(ctx, "sweep lanes", func(t *tx) error {
			n := 1
			if err := t.row(leaseThere, []any{e}, &n); err != nil || n > 0 {
				return err
			}
			return os.Remove(s.lockPath(e))
		})
	}
}

// freeLocks lists the epochs of lock files that nobody holds.
func (s *Store) freeLocks() []int64 {
	entries, err := os.ReadDir(s.lanesDir())
	if err != nil {
		return nil
	}
	var free []int64
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".lock")
		e, err := strconv.ParseInt(name, 10, 64)
		if !ok || err != nil || s.own(e) {
			continue
		}
		if l, err := store.TryLockFile(filepath.Join(s.lanesDir(), entry.Name())); err == nil {
			l.Release()
			free = append(free, e)
		}
	}
	return free
}

// lookForWork lists the lanes, then whether anything can be claimed, when the
// time of the next parked run comes and when a schedule is due.
const lookForWork = `SELECT epoch, 0, NULL, NULL FROM lane_lease UNION ALL
	SELECT 0, EXISTS (SELECT 1 FROM run_queue WHERE queue = '' AND held = 0) OR EXISTS (SELECT 1 FROM run_timer WHERE due_at <= ?1),
		(SELECT min(due_at) FROM run_timer WHERE due_at > ?1), (SELECT min(due_at) FROM schedule WHERE due_at IS NOT NULL)`

// watch answers heartbeats. Nothing is read while no connection has changed
// the file and no parked run's time has come.
type watch struct {
	db      *sql.DB
	conn    *sql.Conn
	version *sql.Stmt
	look    *sql.Stmt
	seen    int64
	queued  bool
	next    time.Time // when the time of the next parked run comes, or of a queue with a rate; zero: none
	gates   store.Gates
	fire    time.Time // when the next schedule is due; zero: none
	epochs  map[int64]bool
}

func newWatch(ctx context.Context, db *sql.DB) (*watch, error) {
	w := &watch{db: db, seen: -1}
	var err error
	if w.conn, err = db.Conn(ctx); err != nil {
		db.Close()
		return nil, err
	}
	if w.version, err = w.conn.PrepareContext(ctx, `PRAGMA data_version`); err == nil {
		w.look, err = w.conn.PrepareContext(ctx, lookForWork)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) close() error {
	if w.version != nil {
		w.version.Close()
	}
	if w.look != nil {
		w.look.Close()
	}
	w.conn.Close()
	return w.db.Close()
}

func (w *watch) refresh(ctx context.Context) error {
	var version int64
	if err := w.version.QueryRowContext(ctx).Scan(&version); err != nil {
		return err
	}
	now := time.Now()
	if version == w.seen && (w.next.IsZero() || now.Before(w.next)) {
		return nil
	}
	rows, err := w.look.QueryContext(ctx, now.UnixMicro())
	if err != nil {
		return err
	}
	epochs, queued := make(map[int64]bool), false
	var next, fire sql.NullInt64
	err = drain(rows, func(r *sql.Rows) error {
		var epoch int64
		var any bool
		if err := r.Scan(&epoch, &any, &next, &fire); err != nil {
			return err
		}
		epochs[epoch] = epoch != 0
		queued = queued || any
		return nil
	})
	if err != nil {
		return err
	}
	ready, start, gates, err := readGates(ctx, w.conn, now)
	if err != nil {
		return err
	}
	w.seen, w.queued, w.next, w.fire, w.epochs, w.gates = version, queued || ready, fromMicros(next), fromMicros(fire), epochs, gates
	if !start.IsZero() && (w.next.IsZero() || start.Before(w.next)) {
		w.next = start
	}
	return nil
}

// Heartbeat implements store.Store. A lane lives by its file lock, so there is
// nothing to renew.
func (s *Store) Heartbeat(ctx context.Context, _ store.ReplicaID) (store.Pulse, error) {
	if err := ctx.Err(); err != nil {
		return store.Pulse{}, err
	}
	var p store.Pulse
	free := s.freeLocks()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return p, storeError("look for work", sql.ErrConnDone)
	}
	if err := s.watch.refresh(ctx); err != nil {
		return p, storeError("look for work", err)
	}
	p.Queued, p.NextDue, p.Gates, p.Now = s.watch.queued, s.watch.next, s.watch.gates, time.Now()
	if fire := s.watch.fire; !fire.IsZero() {
		p.FireIn = max(time.Until(fire), 0)
		p.Fires = p.FireIn == 0
	}
	for e := range s.lanes {
		if !s.watch.epochs[e] {
			p.Lost = true
		}
	}
	for _, e := range free {
		p.Expired = p.Expired || s.watch.epochs[e]
	}
	return p, nil
}
