package postgres

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// dial notices within seconds that the other side is gone without a word.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
		Control:         userTimeout,
	}
	return d.DialContext(ctx, network, addr)
}

// connect opens a connection outside the pool and prepares it with settings.
func (s *Store) connect(ctx context.Context, settings string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.conf.Copy())
	if err != nil {
		return nil, err
	}
	if settings != "" {
		if _, err := conn.Exec(ctx, settings, pgx.QueryExecModeSimpleProtocol); err != nil {
			discard(conn)
			return nil, err
		}
	}
	return conn, nil
}

// discard closes a connection without waiting for the other side for long.
func discard(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// release gives back a connection's locks and closes it: of its end alone the
// database may hear later than the next one who asks for them.
func release(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	_, _ = conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`) // else they go with the connection
	cancel()
	discard(conn)
}

// sideConn is a connection for one purpose, used by one caller at a time and
// opened when it is needed. Its commits are not waited for (synchronous_commit
// off): a crash of the database may lose the last of them.
type sideConn struct {
	mu   sync.Mutex
	conn *pgx.Conn
}

// use runs f, which must be repeatable; a connection that was lost is replaced once.
func (c *sideConn) use(ctx context.Context, s *Store, f func(*pgx.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for again := c.conn != nil; ; again = false {
		if c.conn == nil {
			conn, err := s.connect(ctx, `SET synchronous_commit = off`)
			if err != nil {
				return err
			}
			c.conn = conn
		}
		err := f(c.conn)
		if c.conn.IsClosed() {
			discard(c.conn)
			c.conn = nil
		}
		if err == nil || !again || c.conn != nil || ctx.Err() != nil {
			return err
		}
	}
}

func (c *sideConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		discard(c.conn)
		c.conn = nil
	}
}
