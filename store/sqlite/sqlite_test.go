package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.Child(func(place string) (store.Store, error) {
		return sqlite.Open(context.Background(), sqlite.Config{Path: place})
	})
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open:  func(t testing.TB) store.Store { return open(t, filepath.Join(t.TempDir(), "store.db")) },
		Again: func(t testing.TB, s store.Store) store.Store { return open(t, s.(*sqlite.Store).Path()) },
		Kill:  func(_ testing.TB, s store.Store) { s.(*sqlite.Store).Abandon() },
	})
}

func TestKillNine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	storetest.KillNine(t, open(t, path), path)
}

func TestManyOpenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "a store ?#%.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
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
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file is not where it should be: %v", err)
	}
}

func TestLongPathsHaveBells(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long/", 30), "store.db")
	s, other := open(t, path), open(t, path)
	heard := make(chan store.Bell, 16)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = other.Listen(ctx, func(b store.Bell) { heard <- b })
	})
	<-heard // it listens
	id := pipeline.NewRunID()
	s.Ring(store.Bell{Runs: []pipeline.RunID{id}})
	select {
	case b := <-heard:
		if len(b.Runs) != 1 || b.Runs[0] != id {
			t.Errorf("heard %+v", b)
		}
	case <-time.After(time.Minute):
		t.Error("not heard")
	}
	cancel()
	wg.Wait()
}

// A listener that does not read must not stop bells for the others.
func TestDeafListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	deaf := sqlite.Deafen(t, s)
	heard := make(chan store.Bell, 4096)
	other := open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = other.Listen(ctx, func(b store.Bell) { heard <- b })
	})
	<-heard
	for range 40 {
		id := pipeline.NewRunID()
		s.Ring(store.Bell{Runs: []pipeline.RunID{id}})
		for {
			var b store.Bell
			select {
			case b = <-heard:
			case <-time.After(time.Minute):
				t.Fatal("not heard")
			}
			if b.All || len(b.Runs) > 0 && b.Runs[0] == id {
				break
			}
		}
	}
	if last := deaf(); !last.All {
		t.Errorf("the deaf one finds %+v at last, want a bell that says all", last)
	}
	cancel()
	wg.Wait()
}

func TestErrorsAreClear(t *testing.T) {
	wantError := func(t *testing.T, err error, kind pipeline.ErrorKind, words string) {
		t.Helper()
		var e *pipeline.Error
		if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Text, words) {
			t.Errorf("error is %v, want kind %d with %q", err, kind, words)
		}
	}
	t.Run("not a database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notes.txt")
		if err := os.WriteFile(path, []byte(strings.Repeat("these are notes\n", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
		wantError(t, err, pipeline.Invalid, "notes.txt is not a SQLite database")
	})
	t.Run("no path", func(t *testing.T) {
		_, err := sqlite.Open(t.Context(), sqlite.Config{})
		wantError(t, err, pipeline.Invalid, "path")
	})
	t.Run("a folder", func(t *testing.T) {
		dir := t.TempDir()
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: dir})
		wantError(t, err, pipeline.Unavailable, dir)
	})
	t.Run("full disk", func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "store.db"))
		s.Fill(t)
		err := s.PutPlan(t.Context(), store.Plan{Digest: "sha256:1", Source: make([]byte, 1<<20)})
		wantError(t, err, pipeline.Unavailable, "disk is full")
		s.Empty(t)
		if err := s.PutPlan(t.Context(), store.Plan{Digest: "sha256:1", Source: make([]byte, 1<<20)}); err != nil {
			t.Errorf("after there is room again: %v", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "store.db"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := s.Run(t.Context(), pipeline.NewRunID())
		wantError(t, err, pipeline.Unavailable, "closed")
		wantError(t, s.PutPlan(t.Context(), store.Plan{Digest: "x"}), pipeline.Unavailable, "closed")
		_, err = s.Heartbeat(t.Context(), "a")
		wantError(t, err, pipeline.Unavailable, "closed")
	})
}

func TestDurable(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	if err := s.AppendLogs(t.Context(), []store.LogChunk{{Run: pipeline.NewRunID(), Stream: "stdout"}}); err != nil {
		t.Fatal(err)
	}
	if mode, sync := s.Pragmas(t); mode != "wal" || sync != 2 {
		t.Errorf("journal %s, synchronous %d; want wal and 2 (full)", mode, sync)
	}
}

// Parked runs cost rows, not time: no statement of a heartbeat, a claim or a
// message walks them.
func TestParkedRunsAreNotWalked(t *testing.T) {
	for query, plan := range open(t, filepath.Join(t.TempDir(), "store.db")).Plans(t) {
		for _, step := range plan {
			walks := strings.HasPrefix(step, "SCAN run") ||
				strings.HasPrefix(step, "SCAN approval") || strings.HasPrefix(step, "SCAN inbox") || strings.Contains(step, "TEMP B-TREE")
			if walks {
				t.Errorf("%s\n%s", query, strings.Join(plan, "\n"))
			}
		}
	}
}

func TestOpensFast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	start := time.Now()
	open(t, path)
	first := time.Since(start)
	best := time.Hour
	for range 5 {
		start = time.Now()
		open(t, path)
		best = min(best, time.Since(start))
	}
	t.Logf("first %v, then %v", first, best)
	if best > time.Second {
		t.Errorf("opening takes %v", best)
	}
}
