// Package sqlite is the embedded store: one file, no set-up, the guarantees of
// the Postgres store for the processes of one machine. Any number of them may
// open the file.
//
// Writes of a process go through one connection, one transaction at a time
// (BEGIN IMMEDIATE, WAL, synchronous FULL); reads use a small pool. A lane lives
// as long as its owner holds the file lock <path>.lanes/<epoch>.lock, which
// the kernel releases with the process, so a free lock is a dead owner whose
// runs are queued again at once. Bells travel between processes as datagrams
// through the sockets in <path>.bells.
//
//	s, err := sqlite.Open(ctx, sqlite.Config{Path: "orchestrator.db"})
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/orchestrator-project/orchestrator/migrations"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

var _ store.Store = (*Store)(nil)

// Config of a store. Only Path is required.
type Config struct {
	Path   string       // the database file; it and its folder are made when missing
	Logger *slog.Logger // default: slog.Default
}

const (
	busyTimeout = 10 * time.Second // how long a statement waits for another process's transaction
	readers     = 4                // connections for reading
	bellGap     = 10 * time.Millisecond
)

// Store is an open database file.
type Store struct {
	path   string
	log    *slog.Logger
	writer *writer
	read   *sql.DB
	bus    store.Bus
	store.Stage
	bells *bells
	watch *watch

	stop func()         // ends the goroutines of work
	work sync.WaitGroup // the sender of bells

	mu     sync.Mutex
	lanes  map[int64]*lane      // open lanes by epoch
	stmts  map[string]*sql.Stmt // prepared reads
	closed bool
}

// Open opens the file, makes it when it is missing and brings its schema up to
// date; several processes may do so at once.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, &pipeline.Error{Kind: pipeline.Invalid, Reason: "store_path", Text: "the store needs the path of its file"}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, openError(cfg.Path, err)
	}
	s := &Store{path: path, log: cfg.Logger, lanes: make(map[int64]*lane), stmts: make(map[string]*sql.Stmt)}
	if err := s.open(ctx); err != nil {
		_ = s.closeFiles() // the first error is the cause
		return nil, openError(path, err)
	}
	s.bells = newBells(path, s.bus.Poke)
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.work.Go(func() { s.bus.Run(sending, bellGap, s.bells.send) })
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := os.MkdirAll(s.lanesDir(), 0o700); err != nil {
		return err
	}
	// One process at a time makes the file and its schema.
	door, err := store.LockFile(ctx, filepath.Join(s.lanesDir(), "open.lock"), busyTimeout)
	if err != nil {
		return err
	}
	defer door.Release()

	db := s.connect(1, "")
	if s.writer, err = newWriter(ctx, db); err != nil {
		db.Close()
		return err
	}
	latest, err := migrations.Latest(migrations.SQLite)
	if err != nil {
		return err
	}
	var current int64
	if err := s.writer.conn.QueryRowContext(ctx, migrations.CurrentSQL).Scan(&current); err != nil {
		if hasCode(err, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) {
			return err
		}
		current = 0
	}
	if current < latest {
		m := s.connect(2, "")
		err := migrations.Apply(ctx, m, migrations.SQLite)
		if err := errors.Join(err, m.Close()); err != nil {
			return err
		}
	}
	s.read = s.connect(readers, "&_pragma=query_only(1)")
	s.watch, err = newWatch(ctx, s.connect(1, "&_pragma=query_only(1)"))
	return err
}

func (s *Store) connect(conns int, more string) *sql.DB {
	name := filepath.ToSlash(s.path)
	if !strings.HasPrefix(name, "/") {
		name = "/" + name // a drive letter
	}
	dsn := fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)%s",
		(&url.URL{Path: name}).EscapedPath(), busyTimeout.Milliseconds(), more)
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		panic(err) // only an unknown driver name
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

func (s *Store) lanesDir() string { return s.path + ".lanes" }

// Ping checks that the file can be written and read.
func (s *Store) Ping(ctx context.Context) error {
	return s.writer.do(ctx, "reach the store", func(*tx) error { return nil })
}

// Close ends the store's goroutines and closes the file. Lanes that are still
// open are given up as by Release.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var open []*lane
	for _, l := range s.lanes {
		open = append(open, l)
	}
	s.mu.Unlock()
	var errs []error
	for _, l := range open {
		ctx, cancel := context.WithTimeout(context.Background(), busyTimeout)
		errs = append(errs, l.Release(ctx))
		cancel()
	}
	s.stop()
	s.work.Wait()
	s.bells.close()
	return errors.Join(append(errs, s.closeFiles())...)
}

func (s *Store) closeFiles() error {
	var errs []error
	s.mu.Lock()
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	clear(s.stmts)
	s.mu.Unlock()
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.watch != nil {
		errs = append(errs, s.watch.close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	return errors.Join(errs...)
}

// Ring implements store.Store.
func (s *Store) Ring(b store.Bell) { s.bus.Ring(b) }

// Listen implements store.Store; it returns nil once ctx has ended.
func (s *Store) Listen(ctx context.Context, f func(store.Bell)) error {
	defer s.bus.Add(f)()
	leave, err := s.bells.join(func(b store.Bell) { s.bus.Deliver(b) })
	if err != nil {
		s.log.Warn("bells of other processes cannot be heard, looking once a second instead", "err", err)
		f(store.Bell{All: true, Queued: true})
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				f(store.Bell{All: true, Queued: true})
			}
		}
	}
	defer leave()
	f(store.Bell{All: true, Queued: true}) // whatever rang before
	<-ctx.Done()
	return nil
}

func hasCode(err error, codes ...int) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code()&0xff == c {
			return true
		}
	}
	return false
}

// storeError gives err the kind and the words for callers; do names what was tried.
func storeError(do string, err error) error {
	var known *pipeline.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known), errors.Is(err, store.ErrFenced), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if why := reason(err); why != "" {
		return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_unavailable", Text: "cannot " + do + ": " + why, Err: err}
	}
	return fmt.Errorf("%s: %w", do, err)
}

func reason(err error) string {
	switch {
	case hasCode(err, sqlite3.SQLITE_FULL):
		return "the disk is full"
	case hasCode(err, sqlite3.SQLITE_READONLY), errors.Is(err, fs.ErrPermission):
		return "the store's file or folder is read-only"
	case hasCode(err, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
		return "another process holds the store's lock for too long"
	case hasCode(err, sqlite3.SQLITE_CANTOPEN):
		return "the store's file cannot be opened; is its folder there, and may it be written?"
	case hasCode(err, sqlite3.SQLITE_IOERR):
		return "the disk reports an error"
	case hasCode(err, sqlite3.SQLITE_CORRUPT):
		return "the store's file is damaged"
	case errors.Is(err, sql.ErrConnDone), err != nil && err.Error() == "sql: database is closed":
		return "the store is closed"
	}
	return ""
}

func openError(path string, err error) error {
	if hasCode(err, sqlite3.SQLITE_NOTADB) {
		return &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "store_not_a_database",
			Text: fmt.Sprintf("cannot open the store: %s is not a SQLite database", path), Err: err,
		}
	}
	var known *pipeline.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	why := reason(err)
	if why == "" {
		why = "see the log for the cause"
	}
	return &pipeline.Error{
		Kind: pipeline.Unavailable, Reason: "store_unavailable",
		Text: fmt.Sprintf("cannot open the store %s: %s", path, why), Err: err,
	}
}
