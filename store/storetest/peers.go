package storetest

import (
	"slices"
	"testing"

	"github.com/orchestrator-project/orchestrator/store"
)

// peers proves that the replicas of a store find each other.
func peers(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	known := func(want ...string) {
		t.Helper()
		got, err := other.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("the replicas are at %q, want %q", got, want)
		}
	}
	known()
	first, err := s.OpenLane(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.OpenLane(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	third, err := other.OpenLane(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	known() // nobody has said anything
	for _, a := range []struct {
		replica store.ReplicaID
		addr    string
	}{{"one", "http://b:1"}, {"one", "http://b:1"}, {"two", "http://a:2"}} {
		if err := s.Announce(t.Context(), a.replica, a.addr); err != nil {
			t.Fatal(err)
		}
	}
	known("http://a:2", "http://b:1")
	if err := third.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	known("http://b:1")
	if err := s.Announce(t.Context(), "one", ""); err != nil {
		t.Fatal(err)
	}
	known()
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}
