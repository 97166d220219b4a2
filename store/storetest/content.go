package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// noise is content that does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b) // never fails
	return b
}

func bundles(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	small := pipeline.Bundle{
		"pipeline.yaml": []byte("name: x\x00\xff"), "lib/review.yaml": nil, "skills/größe/SKILL.md": bytes.Repeat([]byte("a"), 100_000),
	}
	large := pipeline.Bundle{"a": noise(store.MaxBundle - 10), "b": []byte("0123456789")}
	for _, b := range []pipeline.Bundle{small, large, {}} {
		for _, x := range []store.Store{s, other} {
			if err := x.PutBundle(t.Context(), b.Digest(), b); err != nil {
				t.Fatal(err)
			}
		}
		got, err := other.Bundle(t.Context(), b.Digest())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(b) || got.Digest() != b.Digest() {
			t.Errorf("%d files with digest %s, want %d with %s", len(got), got.Digest(), len(b), b.Digest())
		}
	}
	large["c"] = []byte{1}
	wantKind(t, s.PutBundle(t.Context(), large.Digest(), large), pipeline.Invalid)
	wantKind(t, s.PutBundle(t.Context(), "sha256:aa", small), pipeline.Invalid)
	_, err := s.Bundle(t.Context(), large.Digest())
	wantKind(t, err, pipeline.NotFound)
}

func blobs(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	old := pipeline.RunID("018bcfe5-6800-7000-8000-000000000001") // of a day long ago
	put := func(x store.Store, run pipeline.RunID, data []byte) pipeline.Digest {
		t.Helper()
		d, err := x.PutBlob(t.Context(), run, data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := other.Blob(t.Context(), run, d)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes read back as %d, %v", len(data), len(got), err)
		}
		return d
	}
	text := []byte(strings.Repeat("text ", 1000))
	if a, b := put(s, r.ID, text), put(other, r.ID, text); a != b || a == "" {
		t.Errorf("the same content has the digests %s and %s", a, b)
	}
	put(s, r.ID, nil)
	put(s, old, []byte{1})
	large := noise(store.MaxBlob)
	put(s, r.ID, large)
	_, err := s.PutBlob(t.Context(), r.ID, append(large, 1))
	wantKind(t, err, pipeline.Invalid)
	_, err = s.PutBlob(t.Context(), "x", nil)
	wantKind(t, err, pipeline.NotFound)
	for _, d := range []pipeline.Digest{"", "sha256:zz", pipeline.Bundle{"a": nil}.Digest()} {
		_, err = s.Blob(t.Context(), r.ID, d)
		wantKind(t, err, pipeline.NotFound)
	}

	// Large bodies of events share the content of the run.
	e := step(2)
	e.Data.Output = string(text)
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{e}}}})
	put(s, r.ID, pipeline.AppendData(nil, &e.Data))
	equal(t, "event", events(t, s, r.ID, 1), []pipeline.Event{e})
}

func caches(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	put := func(key pipeline.Digest, value string, ttl time.Duration) {
		t.Helper()
		if err := s.PutCached(t.Context(), key, []byte(value), ttl); err != nil {
			t.Fatal(err)
		}
	}
	get := func(key pipeline.Digest) string {
		t.Helper()
		v, left, err := other.Cached(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if v == nil {
			return "nothing"
		}
		if left <= 0 || left > time.Hour {
			t.Errorf("%s is kept for %v, stored for at most an hour", key, left)
		}
		return string(v)
	}
	put("a", "1", time.Hour)
	put("b", "", time.Hour)
	put("gone", "2", -time.Second)
	for key, want := range map[pipeline.Digest]string{"a": "1", "b": "", "gone": "nothing", "never": "nothing"} {
		if got := get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	put("a", "3", time.Hour)
	put("gone", "4", time.Hour)
	if a, b := get("a"), get("gone"); a != "3" || b != "4" {
		t.Errorf("later values are %q and %q", a, b)
	}
	put("short", "5", 50*time.Millisecond)
	eventually(t, "the value expires", func() bool { return get("short") == "nothing" })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 30 { // crosswise, half of them expired at once
				key := pipeline.Digest(fmt.Sprint("k", (k*(2*(i%2)-1)+30)%30))
				if err := []store.Store{s, other}[i%2].PutCached(t.Context(), key, []byte("v"), time.Duration(k%2)*time.Hour); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
