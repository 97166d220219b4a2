package storetest

import (
	"strconv"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func shownPieces(t *testing.T, h Harness) {
	s := h.Open(t)
	run, other := pipeline.NewRunID(), pipeline.NewRunID()
	piece := func(id pipeline.RunID, n int) store.Shown {
		return store.Shown{Run: id, Path: "a", Attempt: 1, Delta: pipeline.Delta{Call: 1, Kind: "text", Text: strconv.Itoa(n)}}
	}
	s.Show(piece(run, 0)) // nobody looks
	if s.Watched(run) {
		t.Error("a run is watched before anybody looks")
	}
	var mu sync.Mutex
	var got []string
	leave := s.Look(run, func(p store.Shown) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, p.Delta.Text)
	})
	if !s.Watched(run) || s.Watched(other) {
		t.Errorf("the run is watched: %v, another one: %v", s.Watched(run), s.Watched(other))
	}
	for n := range 3 {
		s.Show(piece(run, n+1))
		s.Show(piece(other, 9))
	}
	leave()
	s.Show(piece(run, 8))
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 3 || got[0] != "1" || got[1] != "2" || got[2] != "3" {
		t.Errorf("a viewer saw %q", got)
	}
	if s.Watched(run) {
		t.Error("a run is watched after its viewer has left")
	}
}
