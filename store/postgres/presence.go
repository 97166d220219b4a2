package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/store"
)

// The channels that the processes hear each other on.
const (
	channel     = "orchestrator_bell"
	liveChannel = "orchestrator_live" // notes of what is only live
)

// presence is the connection that shows the others that this process lives: it
// holds an advisory lock per replica, which the server frees when the process
// is gone, and hears the bells. It costs no statement while nothing changes,
// and one goroutine, which connects again whenever the connection is lost.
type presence struct {
	s    *Store
	done chan struct{}

	mu        sync.Mutex
	replicas  map[int64]bool // by key: whether the lock was asked for on the present connection
	listeners int
	listening bool          // on the present connection
	deaf      bool          // and no bell comes
	changed   chan struct{} // closed whenever something above has changed
	interrupt func()        // ends the wait for notifications
	sparing   time.Time     // until then nobody is called dead
}

// spares tells whether the connection was lost less than one TTL ago. Then the
// database may have been away for everybody, and the living get the time to
// renew their leases, however long it took to recover.
func (p *presence) spares() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.sparing)
}

// lost begins, or begins again, that time.
func (p *presence) lost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sparing = time.Now().Add(p.s.cfg.LeaseTTL)
	for key := range p.replicas {
		p.replicas[key] = false
	}
	p.listening = false
	p.interrupt = func() {}
}

func newPresence(s *Store, running context.Context) *presence {
	p := &presence{s: s, done: make(chan struct{}), replicas: make(map[int64]bool), changed: make(chan struct{}), interrupt: func() {}}
	go func() {
		defer close(p.done)
		p.run(running)
	}()
	return p
}

func (p *presence) wait() { <-p.done }

// changedLocked wakes everybody who waits for a change.
func (p *presence) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// until waits for a condition, which is looked at under the lock.
func (p *presence) until(ctx context.Context, ok func() bool) error {
	for {
		p.mu.Lock()
		if ok() {
			p.mu.Unlock()
			return nil
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-p.done:
			return context.Canceled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hold shows a replica's presence and returns its key.
func (p *presence) hold(ctx context.Context, replica store.ReplicaID) (int64, error) {
	sum := sha256.Sum256([]byte(replica))
	key := int64(binary.BigEndian.Uint64(sum[:8]))
	p.mu.Lock()
	if _, ok := p.replicas[key]; !ok {
		p.replicas[key] = false
		p.interrupt()
		p.changedLocked()
	}
	p.mu.Unlock()
	// A database that is away fails the caller's next statement with better words.
	soon, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	_ = p.until(soon, func() bool { return p.replicas[key] })
	return key, ctx.Err()
}

// listen returns once bells are heard, or with ctx's end.
func (p *presence) listen(ctx context.Context) (leave func(), err error) {
	p.mu.Lock()
	p.listeners++
	p.interrupt()
	p.changedLocked()
	p.mu.Unlock()
	leave = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listeners--
		p.interrupt()
		p.changedLocked()
	}
	return leave, p.until(ctx, func() bool { return p.listening })
}

func (p *presence) run(ctx context.Context) {
	const shortest, longest = 50 * time.Millisecond, 5 * time.Second
	pause := shortest
	for p.until(ctx, func() bool { return ctx.Err() != nil || len(p.replicas) > 0 || p.listeners > 0 }) == nil && ctx.Err() == nil {
		worked, err := p.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		p.lost()
		if worked {
			pause = shortest
		}
		if pause == shortest {
			p.s.cfg.Logger.Warn("the connection for presence and bells is lost, connecting again", "host", p.s.host, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// serve keeps one connection for as long as it lasts.
func (p *presence) serve(ctx context.Context) (worked bool, err error) {
	conn, err := p.s.connect(ctx, "")
	if err != nil {
		return false, err
	}
	defer discard(conn)
	if !p.sparing.IsZero() { // only this goroutine writes it
		p.lost()
	}
	held := make(map[int64]bool)
	listening := false
	retry := time.Second // for a lock that the server has not taken from our lost connection yet
	for {
		waiting, cancel := context.WithCancel(ctx)
		p.mu.Lock()
		p.interrupt = cancel
		want := make([]int64, 0, len(p.replicas))
		for key := range p.replicas {
			want = append(want, key)
		}
		listen := p.listeners > 0
		p.mu.Unlock()

		all := true
		for _, key := range want {
			if !held[key] {
				var ok bool
				if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, key).Scan(&ok); err != nil {
					cancel()
					return worked, err
				}
				held[key] = ok
				all = all && ok
			}
		}
		if listen != listening {
			var err error
			if listen {
				err = p.listenOn(ctx, conn)
			} else {
				_, err = conn.Exec(ctx, `UNLISTEN *`)
			}
			if err != nil {
				cancel()
				return worked, err
			}
			listening = listen
			if listen {
				p.s.bus.Deliver(store.Bell{All: true, Queued: true}) // whatever rang meanwhile
			}
		}
		worked = true
		p.mu.Lock()
		for _, key := range want {
			p.replicas[key] = true
		}
		p.listening = listening
		p.changedLocked()
		p.mu.Unlock()

		if !all {
			time.AfterFunc(retry, cancel)
			retry = min(2*retry, time.Minute)
		}
		err := p.hear(waiting, conn)
		cancel()
		if conn.IsClosed() || ctx.Err() != nil {
			return worked, err
		}
	}
}

// hear delivers the others' bells until ctx ends or the connection is lost.
func (p *presence) hear(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		p.hearsAfterAll()
		from, text, _ := strings.Cut(n.Payload, " ")
		switch {
		case from == p.s.self:
		case n.Channel == liveChannel:
			p.s.Hear(text)
		default:
			p.s.bus.Deliver(store.DecodeBell(text))
		}
	}
}

// notify rings in the other processes.
func (s *Store) notify(ctx context.Context, b store.Bell) error {
	if b.Empty() {
		return nil
	}
	return s.ringer.use(ctx, s, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_notify($1, $2)`, channel, s.self+" "+store.EncodeBell(b))
		return err
	})
}

// tell sends a note about what is only live to the other processes.
func (s *Store) tell(ctx context.Context, note string) error {
	return s.ringer.use(ctx, s, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_notify($1, $2)`, liveChannel, s.self+" "+note)
		return err
	})
}

// Ring implements store.Store.
func (s *Store) Ring(b store.Bell) { s.bus.Ring(b) }

// Listen implements store.Store; it returns nil once ctx has ended.
func (s *Store) Listen(ctx context.Context, f func(store.Bell)) error {
	defer s.bus.Add(f)()
	leave, err := s.presence.listen(ctx)
	defer leave()
	if err == nil {
		f(store.Bell{All: true, Queued: true}) // whatever rang before
		<-ctx.Done()
	}
	return nil
}
