package executor

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// gallery is a store of which nothing but Live is asked.
type gallery struct {
	store.Store
	stage store.Stage
}

func (g *gallery) Watched(run pipeline.RunID) bool { return g.stage.Watched(run) }
func (g *gallery) Show(p store.Shown)              { g.stage.Show(p) }

func TestPiecesOfACallAreShownSoonAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gallery{}
		var red redactor
		red.add("token", "s3cr3t-value")
		s := &showing{store: g, redact: &red, now: time.Now, shown: store.Shown{Run: "r", Path: "a", Attempt: 1}}
		text := func(call int32, text string) {
			s.add(pipeline.Delta{Call: call, Agent: "w", Kind: "text", Text: text})
		}
		text(1, "nobody looks")
		var mu sync.Mutex
		var shown []pipeline.Delta
		leave := g.stage.Look("r", func(p store.Shown) {
			mu.Lock()
			defer mu.Unlock()
			shown = append(shown, p.Delta)
		})
		seen := func() []pipeline.Delta {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(shown)
		}
		forget := func() {
			mu.Lock()
			defer mu.Unlock()
			shown = nil
		}
		all := func(call int32) string {
			var b strings.Builder
			for _, d := range seen() {
				if d.Call == call {
					b.WriteString(d.Text)
				}
			}
			return b.String()
		}

		text(1, "a")
		if got := seen(); len(got) != 1 || got[0].Text != "a" {
			t.Fatalf("the first piece waits: %v", got)
		}
		for range 20 {
			text(1, "b")
			text(2, "-")
		}
		if got := seen(); len(got) != 1 {
			t.Errorf("pieces are sent one by one: %v", got)
		}
		time.Sleep(2 * showEvery)
		if got := seen(); len(got) != 3 || all(1) != "a"+strings.Repeat("b", 20) || all(2) != strings.Repeat("-", 20) {
			t.Errorf("after a while: %v", got)
		}

		forget()
		for _, piece := range []string{"the key is s3c", "r3t-", "value, keep it"} {
			text(3, piece)
			time.Sleep(2 * showEvery)
			if strings.Contains(all(3), "s3c") {
				t.Fatalf("part of a secret is shown: %q", all(3))
			}
		}
		if all(3) != "the key is [secret token], keep it" {
			t.Errorf("shown: %q", all(3))
		}

		forget()
		text(4, "half an ans")
		text(4, "wer")
		s.add(pipeline.Delta{Call: 4, Kind: pipeline.DeltaReset})
		time.Sleep(2 * showEvery)
		if got := seen(); len(got) == 0 || got[len(got)-1].Kind != pipeline.DeltaReset {
			t.Errorf("what was taken back is shown: %v", got)
		}

		forget()
		text(5, "x")
		text(5, "y")
		s.flush()
		if all(5) != "xy" {
			t.Errorf("before the record: %q", all(5))
		}
		leave()
		text(6, strings.Repeat("z", 1<<20))
		if s.size != 0 || len(s.open) != 0 {
			t.Error("it gathers what nobody looks at")
		}
		time.Sleep(time.Second)
	})
}
