package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestKillNine(t *testing.T) {
	s := open(t, storetest.Migrated(t), 0)
	storetest.KillNine(t, s, s.URL())
}

func lane(t testing.TB, s *postgres.Store, replica store.ReplicaID) store.Lane {
	t.Helper()
	l, err := s.OpenLane(t.Context(), replica)
	if err != nil {
		t.Fatalf("open a lane: %v", err)
	}
	return l
}

func runOf(status pipeline.RunStatus) *pipeline.Run {
	return &pipeline.Run{ID: pipeline.NewRunID(), Pipeline: "p", Status: status, CreatedAt: time.Now()}
}

func creation(r *pipeline.Run) store.Create {
	return store.Create{Run: r, Events: []pipeline.Event{{Seq: 1, Type: pipeline.RunCreated, At: time.Now()}}}
}

func appending(id pipeline.RunID, seqs ...int32) *store.Batch {
	a := store.Append{Run: id}
	for _, seq := range seqs {
		a.Events = append(a.Events, pipeline.Event{Seq: seq, Type: pipeline.StepStarted, Path: "a", At: time.UnixMilli(int64(seq))})
	}
	return &store.Batch{Append: []store.Append{a}}
}

func count(t testing.TB, s *postgres.Store, id pipeline.RunID) int {
	t.Helper()
	n := 0
	for e, err := range s.Events(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; int(e.Seq) != n {
			t.Fatalf("event %d stands at place %d", e.Seq, n)
		}
	}
	return n
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

func wantUnavailable(t testing.TB, err error, words string) {
	t.Helper()
	var e *pipeline.Error
	if !errors.As(err, &e) || e.Kind != pipeline.Unavailable || !strings.Contains(e.Text, words) {
		t.Errorf("error is %v, want one that is unavailable and says %q", err, words)
	}
}

// The connection is cut between the server's commit and its answer, or before
// the server has got the batch: the same batch is then recorded once.
func TestCutAtCommit(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(*proxy)
	}{
		{"after", func(p *proxy) { p.forget.Store(true) }},
		{"before", func(p *proxy) { p.cut() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, address := newProxy(t, storetest.Migrated(t))
			s := open(t, address, 0)
			l := lane(t, s, "a")
			warm := runOf(pipeline.RunRunning)
			must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(warm)}}))

			owned, queued, done := runOf(pipeline.RunRunning), runOf(pipeline.RunQueued), runOf(pipeline.RunRunning)
			keyed := creation(queued)
			keyed.IdempotencyKey, keyed.RequestDigest = "key", "sha256:1"
			ended := *done
			ended.Status, ended.FinishedAt = pipeline.RunCompleted, time.Now()
			b := appending(owned.ID, 2, 3, 4)
			b.Append[0].Events[1].Data.Output = strings.Repeat("large ", 1000)
			b.Create = []store.Create{creation(owned), keyed, creation(done)}
			b.Finish = []store.Finish{{Run: &ended}}
			b.Yield = []pipeline.RunID{warm.ID}
			if err := s.Send(t.Context(), warm.ID, store.Message{ID: "m", Kind: "cancel"}); err != nil {
				t.Fatal(err)
			}
			b.Consume = []store.MessageID{"m"}

			c.cut(p)
			if _, err := l.Commit(t.Context(), b); err == nil {
				t.Fatal("the cut was not noticed")
			} else {
				wantUnavailable(t, err, "127.0.0.1:")
			}
			for range 2 {
				var res store.Result
				eventually(t, "the batch is recorded", func() bool {
					var err error
					res, err = l.Commit(t.Context(), b)
					return err == nil
				})
				for i, r := range res.Creates {
					if r != (store.CreateResult{}) {
						t.Errorf("create %d lost its key to %+v", i, r)
					}
				}
			}
			if n := count(t, s, owned.ID); n != 4 {
				t.Errorf("%d events, want 4", n)
			}
			runs := must[[]*pipeline.Run](t)(l.Claim(t.Context(), 10))
			if len(runs) != 2 || runs[0].ID != warm.ID || runs[1].ID != queued.ID {
				t.Errorf("%d runs in the queue, want 2", len(runs))
			}
		})
	}
}

// A claim whose answer is lost is found again.
func TestCutAtClaim(t *testing.T) {
	p, address := newProxy(t, storetest.Migrated(t))
	s := open(t, address, 0)
	l := lane(t, s, "a")
	want := make(map[pipeline.RunID]bool)
	b := new(store.Batch)
	for range 30 {
		r := runOf(pipeline.RunQueued)
		want[r.ID] = true
		b.Create = append(b.Create, creation(r))
	}
	must[store.Result](t)(l.Commit(t.Context(), b))
	for tries := 0; len(want) > 0; tries++ {
		if tries > 200 {
			t.Fatalf("%d runs are lost", len(want))
		}
		if tries%3 == 1 {
			p.swallow.Store(true) // some answer of the next claim
		}
		runs, err := l.Claim(t.Context(), 4)
		if err != nil {
			continue
		}
		p.swallow.Store(false)
		for _, r := range runs {
			if !want[r.ID] {
				t.Errorf("run %s was given twice", r.ID)
			}
			delete(want, r.ID)
		}
	}
}

// A signal whose answer was lost may have been taken already: sent again it would
// be taken twice, unless its key tells.
func TestASignalWhoseAnswerIsLostIsNotSentAgain(t *testing.T) {
	p, address := newProxy(t, storetest.Migrated(t))
	s := open(t, address, 0)
	l := lane(t, s, "a")
	r := runOf(pipeline.RunRunning)
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}))
	send := func(key string) error {
		return s.Send(t.Context(), r.ID, store.Message{Kind: store.MessageSignal, Key: key, Body: []byte(`{"name":"go"}`)})
	}
	eventually(t, "the sender is told", func() bool { // another connection's answer may be lost instead
		p.swallow.Store(true)
		return pipeline.KindOf(send("")) == pipeline.Unavailable
	})
	p.swallow.Store(true)
	if err := send("key"); err != nil {
		t.Errorf("with a key it is sent again: %v", err)
	}
}

// A client that is stopped in the middle of a batch holds the lease's row;
// reclaim ends exactly its connection.
func TestReclaimEndsAStuckBatch(t *testing.T) {
	u := storetest.Migrated(t)
	const ttl = 3 * time.Second // of leases that have to be renewed in between, on a slow disk too
	stuck, s := open(t, u, ttl), open(t, u, ttl)
	l := lane(t, stuck, "stuck")
	r := runOf(pipeline.RunRunning)
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}))
	postgres.Stall(t, l)
	eventually(t, "the lease has expired", func() bool {
		return must[store.Pulse](t)(s.Heartbeat(t.Context(), "b")).Expired
	})
	start := time.Now()
	if n := must[int](t)(s.Reclaim(t.Context())); n != 1 {
		t.Errorf("%d runs were queued again, want 1", n)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("reclaim took %v", d)
	}
	eventually(t, "the stopped lane is fenced", func() bool {
		_, err := l.Commit(t.Context(), appending(r.ID, 2))
		return errors.Is(err, store.ErrFenced)
	})
	if n := count(t, s, r.ID); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// A process that was stopped (SIGSTOP) and goes on later: its lease has
// expired and its runs are somebody else's.
func TestZombie(t *testing.T) {
	u := storetest.Migrated(t)
	const ttl = 3 * time.Second // of leases that have to be renewed in between, on a slow disk too
	zombie, s := open(t, u, ttl), open(t, u, ttl)
	l := lane(t, zombie, "zombie")
	r := runOf(pipeline.RunRunning)
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}))
	eventually(t, "the lease has expired", func() bool {
		return must[store.Pulse](t)(s.Heartbeat(t.Context(), "b")).Expired
	})
	// Expired, but not reclaimed: it writes nothing, and may be renewed.
	if _, err := l.Commit(t.Context(), appending(r.ID, 2)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("commit under an expired lease: %v", err)
	}
	if p := must[store.Pulse](t)(zombie.Heartbeat(t.Context(), "zombie")); p.Lost {
		t.Error("the lease is gone though nobody reclaimed it")
	}
	must[store.Result](t)(l.Commit(t.Context(), appending(r.ID, 2)))

	eventually(t, "the lease is reclaimed", func() bool { return must[int](t)(s.Reclaim(t.Context())) == 1 })
	next := lane(t, s, "b")
	if runs := must[[]*pipeline.Run](t)(next.Claim(t.Context(), 5)); len(runs) != 1 {
		t.Fatalf("%d runs claimed", len(runs))
	}
	must[store.Result](t)(next.Commit(t.Context(), appending(r.ID, 3)))
	if _, err := l.Commit(t.Context(), appending(r.ID, 3, 4)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("commit of the zombie: %v", err)
	}
	if p := must[store.Pulse](t)(zombie.Heartbeat(t.Context(), "zombie")); !p.Lost {
		t.Error("the zombie does not learn that its lease is gone")
	}
	if n := count(t, s, r.ID); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}

func TestDatabaseRestart(t *testing.T) {
	c := storetest.NewCluster(t)
	const ttl = 8 * time.Second // it starts again within it
	s, other := open(t, c.URL, ttl), open(t, c.URL, ttl)
	lane(t, other, "b")
	var mu sync.Mutex
	var heard []store.Bell
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Listen(ctx, func(b store.Bell) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, b)
		})
	})
	defer wg.Wait()
	defer cancel()
	l := lane(t, s, "a")
	r := runOf(pipeline.RunRunning)
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}))
	must[*pipeline.Run](t)(other.Run(t.Context(), r.ID))
	if err := s.AppendLogs(t.Context(), []store.LogChunk{{Run: r.ID, Stream: "stdout", At: time.Now()}}); err != nil {
		t.Fatal(err)
	}

	c.Kill()
	host := fmt.Sprintf("127.0.0.1:%d", c.Port)
	_, err := l.Commit(t.Context(), appending(r.ID, 2, 3))
	wantUnavailable(t, err, host)
	_, err = s.Run(t.Context(), r.ID)
	wantUnavailable(t, err, host)
	_, err = s.Heartbeat(t.Context(), "a")
	wantUnavailable(t, err, host)
	wantUnavailable(t, s.Ping(t.Context()), host)
	_, err = l.Claim(t.Context(), 1)
	wantUnavailable(t, err, host)
	wantUnavailable(t, s.AppendLogs(t.Context(), []store.LogChunk{{Run: r.ID, Stream: "stdout"}}), host)
	time.Sleep(ttl) // the lease expires while the database is away
	mu.Lock()
	heard = nil
	mu.Unlock()

	c.Restart(t)
	if p := must[store.Pulse](t)(other.Heartbeat(t.Context(), "b")); p.Expired {
		t.Error("a database that has just started calls its lanes dead")
	}
	if n := must[int](t)(other.Reclaim(t.Context())); n != 0 {
		t.Errorf("%d runs were reclaimed right after the start", n)
	}
	if p := must[store.Pulse](t)(s.Heartbeat(t.Context(), "a")); p.Lost {
		t.Error("the lease was lost")
	}
	eventually(t, "the lane writes again", func() bool {
		_, err := l.Commit(t.Context(), appending(r.ID, 2, 3))
		return err == nil
	})
	if n := count(t, other, r.ID); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	if err := s.AppendLogs(t.Context(), []store.LogChunk{{Run: r.ID, Stream: "stdout", At: time.Now()}}); err != nil {
		t.Error(err)
	}
	eventually(t, "the listener hears that bells were lost", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard) > 0 && heard[0].All
	})
	id := pipeline.NewRunID()
	other.Ring(store.Bell{Runs: []pipeline.RunID{id}})
	eventually(t, "bells ring again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		last := heard[len(heard)-1]
		return len(last.Runs) == 1 && last.Runs[0] == id || last.All && len(heard) > 1
	})
	// After the time of grace the living are still known to live.
	end := time.Now().Add(ttl + time.Second)
	for time.Now().Before(end) {
		must[store.Pulse](t)(s.Heartbeat(t.Context(), "a"))
		if p := must[store.Pulse](t)(other.Heartbeat(t.Context(), "b")); p.Expired {
			t.Fatal("a living lane counts as dead")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Losing the connection of its presence does not kill a replica, nor does the
// loss of a lane's.
func TestLostConnections(t *testing.T) {
	u := storetest.Migrated(t)
	s, other := open(t, u, 0), open(t, u, 0)
	l := lane(t, s, "a")
	r := runOf(pipeline.RunRunning)
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}))
	conn := must[*pgx.Conn](t)(pgx.Connect(t.Context(), u))
	defer conn.Close(context.Background())
	for _, which := range []string{
		`pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')`,
		`pid IN (SELECT backend_pid FROM lane_lease)`,
	} {
		if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND `+which); err != nil {
			t.Fatal(err)
		}
		if p := must[store.Pulse](t)(other.Heartbeat(t.Context(), "b")); p.Expired {
			t.Error("one lost connection makes a lane dead")
		}
		eventually(t, "the presence is back", func() bool {
			var n int
			err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
			return err == nil && n > 0
		})
	}
	if n := must[int](t)(other.Reclaim(t.Context())); n != 0 {
		t.Errorf("%d runs of a living lane were reclaimed", n)
	}
	for seq := int32(2); seq < 4; seq++ {
		eventually(t, "the lane writes again", func() bool {
			_, err := l.Commit(t.Context(), appending(r.ID, seq))
			return err == nil
		})
	}
	if n := count(t, s, r.ID); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}

func TestOpenErrors(t *testing.T) {
	const password = "pass-word-7"
	quiet := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")) // accepts and says nothing
	defer quiet.Close()
	gone := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	gone.Close()
	server := must[*url.URL](t)(url.Parse(storetest.Postgres(t)))
	wrong := *server
	wrong.User = url.UserPassword(server.User.Username(), password)
	missing := *server
	missing.Path = "/no_such_database"
	for _, c := range []struct{ name, address, words string }{
		{"nothing there", "postgres://u:" + password + "@" + gone.Addr().String() + "/db?sslmode=disable", gone.Addr().String()},
		{"no answer", "postgres://u:" + password + "@" + quiet.Addr().String() + "/db?sslmode=disable", quiet.Addr().String()},
		{"wrong password", wrong.String(), "password authentication failed"},
		{"no such database", missing.String(), "no_such_database"},
		{"no address", "postgres://u:" + password + "@host:port/db", "looks like"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, err := postgres.Open(t.Context(), postgres.Config{URL: c.address})
			if err == nil {
				t.Fatal("it opened")
			}
			if d := time.Since(start); d > time.Minute {
				t.Errorf("it took %v", d)
			}
			var e *pipeline.Error
			if !errors.As(err, &e) || !strings.Contains(e.Text, c.words) {
				t.Errorf("error is %v, want %q", err, c.words)
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// An idle replica sends nothing but its heartbeat, one statement each.
func TestIdleReplicaIsQuiet(t *testing.T) {
	p, address := newProxy(t, storetest.Migrated(t))
	s := open(t, address, 0)
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan struct{}, 8)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Listen(ctx, func(store.Bell) { listening <- struct{}{} }) })
	defer wg.Wait()
	defer cancel()
	<-listening
	lane(t, s, "a")
	lane(t, s, "a")
	must[store.Pulse](t)(s.Heartbeat(t.Context(), "a"))
	before := p.statements.Load()
	for range 4 {
		must[store.Pulse](t)(s.Heartbeat(t.Context(), "a"))
		time.Sleep(1200 * time.Millisecond) // long enough for the pool to doubt its connections
	}
	if n := p.statements.Load() - before; n != 4 {
		t.Errorf("%d statements in 4 heartbeats", n)
	}
}

func TestRunsOfAnyDay(t *testing.T) {
	s := open(t, storetest.Migrated(t), 0)
	l := lane(t, s, "a")
	b := new(store.Batch)
	var ids []pipeline.RunID
	for _, day := range []string{"2019-05-05", "2031-01-02", "2019-05-06"} {
		at := must[time.Time](t)(time.Parse(time.DateOnly, day))
		r := runOf(pipeline.RunRunning)
		u := uuid.MustParse(string(r.ID))
		for i := range 6 {
			u[i] = byte(at.UnixMilli() >> (40 - 8*i))
		}
		r.ID = pipeline.RunID(u.String())
		if r.ID.Day() != at {
			t.Fatalf("%s is of day %v", r.ID, r.ID.Day())
		}
		ids = append(ids, r.ID)
		c := creation(r)
		c.Events[0].Data.Output = strings.Repeat("large", 1000)
		b.Create = append(b.Create, c)
	}
	must[store.Result](t)(l.Commit(t.Context(), b))
	for _, id := range ids {
		if n := count(t, s, id); n != 1 {
			t.Errorf("%d events", n)
		}
		if err := s.AppendLogs(t.Context(), []store.LogChunk{{Run: id, Stream: "stdout", Text: "x", At: time.Now()}}); err != nil {
			t.Error(err)
		}
	}
	page := must[store.Page](t)(s.Runs(t.Context(), store.Query{}))
	if len(page.Runs) != 3 || page.Runs[0].ID != ids[1] || page.Runs[2].ID != ids[0] {
		t.Errorf("%d runs, or in another order", len(page.Runs))
	}
}

func TestManyOpenAtOnce(t *testing.T) {
	u := storetest.Postgres(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := postgres.Open(t.Context(), postgres.Config{URL: u, PoolSize: 2})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := errors.Join(s.Ping(t.Context()), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Two lanes that store the same large bodies in crossed order do not block
// each other.
func TestCrossedBlobs(t *testing.T) {
	s := open(t, storetest.Migrated(t), 0)
	var wg sync.WaitGroup
	for i := range 2 {
		l := lane(t, s, store.ReplicaID(fmt.Sprint("r", i)))
		wg.Go(func() {
			for round := range 10 {
				b := new(store.Batch)
				for k := range 20 {
					if i == 1 {
						k = 19 - k
					}
					c := creation(runOf(pipeline.RunRunning))
					c.Events[0].Data.Output = fmt.Sprint(round, k, strings.Repeat("x", 3000))
					b.Create = append(b.Create, c)
				}
				if _, err := l.Commit(t.Context(), b); err != nil {
					t.Errorf("commit: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
