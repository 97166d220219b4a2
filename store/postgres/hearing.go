package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/orchestrator-project/orchestrator/store"
)

// echoTime is how long a bell of our own may take to come back.
const echoTime = 2 * time.Second

// Deaf implements store.Hearing.
func (s *Store) Deaf() bool {
	p := s.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaf
}

// listenOn makes the server send bells over a connection, and proves by one of our
// own that they come. A pooler may refuse that, or say yes and forget it with the
// next statement: then this process is deaf.
func (p *presence) listenOn(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `LISTEN `+channel)
	if err == nil {
		_, err = conn.Exec(ctx, `LISTEN `+liveChannel)
	}
	heard := err == nil
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !conn.IsClosed() && !isLost(pg) {
		p.s.cfg.Logger.Warn("the database, or a pooler before it, refuses LISTEN", "host", p.s.host, "err", pg)
		err = nil
	}
	if err == nil && heard {
		heard, err = p.echoes(ctx, conn)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	was := p.deaf
	p.deaf = !heard
	p.mu.Unlock()
	if !heard && !was {
		p.s.cfg.Logger.Warn("bells of other processes are not heard: each heartbeat looks for what they would tell, and whoever watches more often; connect without a pooler, or let it pool sessions", "host", p.s.host)
	}
	return nil
}

// echoes reports whether a bell is heard. Any will do: listeners are told to look
// at everything next.
func (p *presence) echoes(ctx context.Context, conn *pgx.Conn) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, echoTime)
	defer cancel()
	err := p.s.ringer.use(waiting, p.s, func(c *pgx.Conn) error {
		_, err := c.Exec(waiting, `SELECT pg_notify($1, $2)`, channel, p.s.self+" "+store.EncodeBell(store.Bell{}))
		return err
	})
	if err == nil {
		_, err = conn.WaitForNotification(waiting)
	}
	switch {
	case err == nil:
		return true, nil
	case conn.IsClosed() || ctx.Err() != nil:
		return false, err
	}
	return false, nil
}

// hearsAfterAll notes that a bell has come.
func (p *presence) hearsAfterAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = false
}
