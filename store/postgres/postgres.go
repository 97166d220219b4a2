// Package postgres is the store that many replicas share.
//
// A replica uses a pool for reads and heartbeats, one connection per lane for
// its commits, one connection that carries its presence (an advisory lock that
// the server frees with the process) and hears bells, one that rings them and
// one for logs. All of them come back by themselves after the database was
// away.
//
//	s, err := postgres.Open(ctx, postgres.Config{URL: "postgres://localhost/orchestrator"})
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

var _ store.Store = (*Store)(nil)

// Config of a store. Only URL is required.
type Config struct {
	URL      string        // postgres://user:password@host:port/database?options, or key=value pairs
	PoolSize int           // connections for reads and heartbeats; default 8
	LeaseTTL time.Duration // a lane that is not renewed for so long may be reclaimed; default 15 s
	Logger   *slog.Logger  // default: slog.Default
}

const (
	defaultPoolSize = 8
	defaultLeaseTTL = 15 * time.Second
	connectTimeout  = 5 * time.Second
	commitTimeout   = 30 * time.Second // of one try; a batch takes milliseconds
	bellGap         = 15 * time.Millisecond
)

// Store is an open database.
type Store struct {
	cfg  Config
	conf *pgx.ConnConfig // of every connection
	host string          // host:port, for messages
	self string          // tells our own bells from others'
	pool *pgxpool.Pool
	bus  store.Bus
	store.Stage

	presence *presence
	logs     sideConn
	ringer   sideConn

	stop func() // ends the goroutines of work
	work sync.WaitGroup

	mu     sync.Mutex
	lanes  map[int64]*lane
	day    time.Time // the newest UTC day whose partitions were looked after
	closed bool
}

// Open connects and brings the schema up to date; several processes may do so
// at once. A database that does not answer makes it fail within seconds.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.PoolSize <= 0 {
		cfg.PoolSize = defaultPoolSize
	}
	if cfg.LeaseTTL <= 0 {
		cfg.LeaseTTL = defaultLeaseTTL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	conf, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		// The cause may quote the address, and with it the password.
		return nil, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "database_url",
			Text: "the address of the database cannot be read; it looks like postgres://user:password@host:5432/name",
		}
	}
	c := conf.ConnConfig
	s := &Store{
		cfg: cfg, conf: c, host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), self: rand.Text()[:10],
		lanes: make(map[int64]*lane),
	}
	if strings.HasPrefix(c.Host, "/") {
		s.host = c.Host
	}
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "orchestrator"
	}
	c.DialFunc = dial
	conf.MaxConns = int32(min(cfg.PoolSize, 1000))
	conf.MaxConnIdleTime = 5 * time.Minute
	// A heartbeat must not cost a second statement. Whoever meets a connection
	// that died meanwhile empties the pool and tries again.
	conf.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > time.Minute }
	conf.PingTimeout = connectTimeout
	if s.pool, err = pgxpool.NewWithConfig(ctx, conf); err != nil {
		return nil, s.fail(ctx, "connect", err)
	}
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	err = s.pool.Ping(connecting)
	cancel()
	if err == nil {
		err = s.migrate(ctx)
	}
	if err != nil {
		s.pool.Close()
		return nil, s.fail(ctx, "open the store", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.presence = newPresence(s, running)
	s.work.Go(func() { s.bus.Run(running, bellGap, s.notify) })
	s.work.Go(func() { s.Stage.Run(running, s.tell) })
	return s, nil
}

// Ping checks that the database can be written and read.
func (s *Store) Ping(ctx context.Context) error {
	var standby bool
	err := s.do(ctx, "reach the store", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby)
	})
	if err == nil && standby {
		err = &pipeline.Error{
			Kind: pipeline.Unavailable, Reason: "store_read_only",
			Text: fmt.Sprintf("the database at %s is a standby and cannot be written", s.host),
		}
	}
	return err
}

// Close ends the store's goroutines and connections. Lanes that are still open
// are given up as by Release, if the database answers.
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
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	var errs []error
	for _, l := range open {
		errs = append(errs, l.Release(ctx))
		l.drop()
	}
	s.stop()
	s.work.Wait()
	s.presence.wait()
	s.logs.close()
	s.ringer.close()
	s.pool.Close()
	return errors.Join(errs...)
}

// do runs f, which must be repeatable, on a connection of the pool. When that
// turns out to be dead the others are given up too, and f gets a fresh one.
func (s *Store) do(ctx context.Context, what string, f func(*pgxpool.Conn) error) error {
	return s.try(ctx, what, f, isLost)
}

// once is do for what must not happen twice: f is repeated only where the database
// has surely not got it.
func (s *Store) once(ctx context.Context, what string, f func(*pgxpool.Conn) error) error {
	return s.try(ctx, what, f, func(err error) bool {
		_, refused := errors.AsType[*pgconn.PgError](err)
		return isLost(err) && (refused || pgconn.SafeToRetry(err))
	})
}

func (s *Store) try(ctx context.Context, what string, f func(*pgxpool.Conn) error, again func(error) bool) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_closed", Text: "cannot " + what + ": the store is closed"}
	}
	err := s.pool.AcquireFunc(ctx, f)
	if err != nil && ctx.Err() == nil && again(err) {
		s.pool.Reset()
		err = s.pool.AcquireFunc(ctx, f)
	}
	return s.fail(ctx, what, err)
}

// fail gives err the kind and the words for callers. ctx is the caller's: time
// limits of our own mean that the database does not answer.
func (s *Store) fail(ctx context.Context, what string, err error) error {
	var known *pipeline.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known), errors.Is(err, store.ErrFenced):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	if isLost(err) || isConnect(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &pipeline.Error{
			Kind: pipeline.Unavailable, Reason: "store_unavailable",
			Text: fmt.Sprintf("cannot %s: the database at %s %s", what, s.host, s.why(err)), Err: err,
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

func isConnect(err error) bool {
	var c *pgconn.ConnectError
	return errors.As(err, &c)
}

// isLost tells whether the connection, not the statement, has failed.
func isLost(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "57P01", "57P02", "57P03", "57P05", "53300", "53100", "25006": // shutdown, crash, start-up, idle, too many, disk full, standby
			return true
		}
		return strings.HasPrefix(pg.Code, "08")
	}
	var op net.Error
	return isConnect(err) || errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

func (s *Store) why(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "refuses: " + pg.Message
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "connection refused"):
		return "is not there (connection refused)"
	case strings.Contains(text, "no such host"):
		return "has an unknown host name"
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "timeout"):
		return "does not answer"
	case isConnect(err):
		return "cannot be reached"
	}
	return "has closed the connection"
}
