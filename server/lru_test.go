package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestLRUMakesEachValueOnce(t *testing.T) {
	c := newLRU[string, int](100)
	var made atomic.Int32
	hold := make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			v, err := c.get(t.Context(), "k", func() (int, int64, error) {
				made.Add(1)
				<-hold
				return 7, 10, nil
			})
			if v != 7 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
		})
	}
	close(hold)
	wg.Wait()
	if made.Load() != 1 || c.size() != 10 {
		t.Errorf("made %d times, holds %d bytes", made.Load(), c.size())
	}
}

func TestLRUStaysWithinItsBytes(t *testing.T) {
	c := newLRU[int, int](100)
	get := func(k int, bytes int64) (made bool) {
		_, err := c.get(t.Context(), k, func() (int, int64, error) { made = true; return k, bytes, nil })
		if err != nil {
			t.Error(err)
		}
		return made
	}
	get(1, 40)
	get(2, 40)
	if get(1, 40) {
		t.Error("1 was made twice")
	}
	get(3, 40) // pushes 2 out, which was used longest ago
	if get(1, 40) || !get(2, 40) {
		t.Error("not the value used longest ago was dropped")
	}
	get(4, 1000) // too large to keep
	if c.size() > 100 || !get(4, 1000) {
		t.Errorf("holds %d bytes", c.size())
	}
}

func TestLRUDoesNotKeepFailures(t *testing.T) {
	c := newLRU[string, int](100)
	fail := errors.New("no")
	if _, err := c.get(t.Context(), "k", func() (int, int64, error) { return 0, 0, fail }); !errors.Is(err, fail) {
		t.Errorf("%v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = c.get(t.Context(), "k", func() (int, int64, error) { panic("broken") })
	}()
	// One waits while another makes, and its caller leaves.
	begun, hold, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if v, err := c.get(context.Background(), "k", func() (int, int64, error) { close(begun); <-hold; return 3, 1, nil }); v != 3 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.get(ctx, "k", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(hold)
	<-done
}
