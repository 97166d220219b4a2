package storetest

import (
	"bytes"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/store"
)

func keys(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	const callers = 16
	got := make([][]byte, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			from := s
			if i%2 == 1 {
				from = other
			}
			var err error
			if got[i], err = from.Key(t.Context(), "attempt"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range got {
		if len(got[i]) != store.KeySize || !bytes.Equal(got[i], got[0]) {
			t.Fatalf("caller %d got %x, the first one %x", i, got[i], got[0])
		}
	}
	second, err := s.Key(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(second, got[0]) || bytes.Equal(second, make([]byte, store.KeySize)) {
		t.Errorf("another key is %x", second)
	}
	if again, err := other.Key(t.Context(), "attempt"); err != nil || !bytes.Equal(again, got[0]) {
		t.Errorf("later the key is %x: %v", again, err)
	}
}
