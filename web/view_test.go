package web

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestPlaceTakesPathsApart(t *testing.T) {
	for _, c := range []struct {
		path, node, parent string
		pass               int32
	}{
		{"load", "load", "", -1},
		{"check/sample", "check/sample", "check", -1},
		{"each[2]/score", "each/score", "each", 2},
		{"each[2]/inner[10]/x", "each/inner/x", "each[2]/inner", 10},
		{"each[2]/check/x", "each/check/x", "each[2]/check", -1},
		{"fetch[3]", "fetch[]", "fetch", 3},
		{"each[1]/fetch[3]", "each/fetch[]", "each[1]/fetch", 3},
		{"again~2", "again", "", -1},
		{"each[2]/again~1", "each/again", "each", 2},
	} {
		node, parent, pass := place(c.path)
		if node != c.node || parent != c.parent || pass != c.pass {
			t.Errorf("place(%q) = %q, %q, %d; want %q, %q, %d", c.path, node, parent, pass, c.node, c.parent, c.pass)
		}
	}
}

// opened returns the view of a story's run, brought up to date.
func opened(t testing.TB, f *fake, s *story) (*site, *view) {
	t.Helper()
	conn := dial(t, f)
	st := newSite(Config{Conn: conn})
	v, err := st.open(t.Context(), s.run.Id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return st, v
}

func TestViewCountsPassesOfLoops(t *testing.T) {
	f := newFake()
	_, v := opened(t, f, f.running(9))
	var loop box
	for _, b := range v.drawn(screen{Run: v.id}, -1).Boxes {
		if b.ID == "node-each_issue" {
			loop = b
		}
	}
	if loop.Note != "12/20" || loop.State != "running" {
		t.Errorf("the loop shows %q, %s; want 12/20, running", loop.Note, loop.State)
	}
	if h := v.head(screen{}); h.Done != 27 || h.Total != 35 {
		t.Errorf("the head shows %d of %d steps; want 27 of 35", h.Done, h.Total)
	}
}

func TestViewCountsPassesOfALoopOverOneDoing(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", &api.Graph{Nodes: []*api.GraphNode{{Id: "fetch", Label: "fetch", Kind: "for", Width: 120, Height: 44}}}, "")
	s.start(epoch)
	s.step("fetch", api.Step_RUNNING, epoch, nil)
	s.step("fetch[0]", api.Step_COMPLETED, epoch, nil)
	s.step("fetch[1]", api.Step_FAILED, epoch, nil)
	s.step("fetch[2]", api.Step_RUNNING, epoch, nil)
	_, v := opened(t, f, s)
	if b := v.drawn(screen{}, -1).Boxes[0]; b.Note != "2/3" || b.State != "running" {
		t.Errorf("the loop shows %q, %s; want 2/3, running", b.Note, b.State)
	}
	rows := v.window(screen{}).Rows
	if len(rows) != 4 || rows[1].Name != "fetch" || rows[1].Pass != "[0]" || rows[1].depth != 1 {
		t.Errorf("the list shows %+v", rows)
	}
}

// The paths of steps in an arm of a choice do not name the choice; the arms that
// were not taken have no instances.
func TestViewFindsStepsInArmsOfAChoice(t *testing.T) {
	f := newFake()
	node := func(id, parent, kind string) *api.GraphNode {
		return &api.GraphNode{Id: id, Label: lastPart(id), Parent: parent, Kind: kind, Width: 120, Height: 44}
	}
	s := f.begin(1, "p", &api.Graph{Nodes: []*api.GraphNode{
		node("each", "", "for"), node("each/count", "each", "command"), node("each/large", "each", "if"),
		node("each/large/look", "each/large", "command"), node("each/large/skip", "each/large", "command"),
	}}, "")
	s.start(epoch)
	s.step("each", api.Step_RUNNING, epoch, nil)
	for i, arm := range []string{"look", "skip"} {
		pass := fmt.Sprintf("each[%d]/", i)
		s.step(pass+"count", api.Step_COMPLETED, epoch, nil)
		s.step(pass+"large", api.Step_RUNNING, epoch, func(st *api.Step) { st.Kind = "if" })
		s.step(pass+arm, api.Step_COMPLETED, epoch, nil)
	}
	s.step("each[0]/large", api.Step_COMPLETED, epoch, nil)
	_, v := opened(t, f, s)
	got := map[string]string{}
	for _, b := range v.drawn(screen{}, -1).Boxes {
		got[b.ID] = string(b.State) + " " + b.Note
	}
	if got["node-each"] != "running 1/2" || got["node-each/large/look"] != "completed " || got["node-each/large/skip"] != "completed " || got["node-each/large"] != "running 1/2" {
		t.Errorf("drawn %v", got)
	}
	var rows []string
	for _, r := range v.window(screen{Under: "each"}).Rows {
		rows = append(rows, fmt.Sprint(r.depth, r.Pass, r.Name))
	}
	want := []string{"0each", "1[0]count", "1[0]large", "2look", "1[1]count", "1[1]large", "2skip"}
	if !slices.Equal(rows, want) {
		t.Errorf("listed %v\nwant %v", rows, want)
	}
}

func TestViewListsParallelPassesTogether(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	for _, p := range []string{"each_issue", "each_issue[1]/classify", "each_issue[0]/classify", "each_issue[1]/score", "each_issue[0]/score"} {
		s.step(p, api.Step_COMPLETED, epoch, nil)
	}
	_, v := opened(t, f, s)
	var got []string
	for _, r := range v.window(screen{}).Rows {
		got = append(got, r.Path)
	}
	want := []string{"each_issue", "each_issue[0]/classify", "each_issue[0]/score", "each_issue[1]/classify", "each_issue[1]/score"}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v\nwant %v", got, want)
	}
}

// A long run is read from its list of steps, a short one from its events: both
// ways, and following the events live, end in the same picture.
func TestViewIsTheSameByEventsAndBySnapshot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFake()
		s := f.begin(1, "p", demoGraph(), "")
		s.start(epoch)
		paths := []string{"load", "each_issue"}
		for i := range rapid.IntRange(0, 4).Draw(rt, "passes") {
			paths = append(paths, fmt.Sprintf("each_issue[%d]/classify", i), fmt.Sprintf("each_issue[%d]/score", i))
		}
		statuses := []api.Step_Status{api.Step_RUNNING, api.Step_COMPLETED, api.Step_FAILED, api.Step_SKIPPED}
		at := epoch
		for _, p := range paths {
			s.step(p, api.Step_RUNNING, at, nil)
		}
		half := len(s.events)
		for range rapid.IntRange(0, 12).Draw(rt, "changes") {
			p := rapid.SampledFrom(paths).Draw(rt, "path")
			if finalStep(s.steps[s.index[p]].Status) {
				continue
			}
			at = at.Add(time.Second)
			s.step(p, rapid.SampledFrom(statuses).Draw(rt, "status"), at, nil)
		}

		byEvents, live, bySteps := newView("a"), newView("b"), newView("c")
		for _, v := range []*view{byEvents, live, bySteps} {
			v.run = s.run
			v.graph = newGraph(s.graph)
		}
		for _, e := range s.events {
			mustApply(rt, byEvents, e)
		}
		for _, e := range append(slices.Clone(s.events[:half]), s.events...) { // some come twice
			mustApply(rt, live, e)
		}
		bySteps.seq = int32(half) // the snapshot is newer than the event that it is taken for
		for _, st := range s.steps {
			bySteps.put(st, bySteps.seq)
		}
		for _, e := range s.events {
			mustApply(rt, bySteps, e)
		}
		for _, v := range []*view{live, bySteps} {
			if v.tally != byEvents.tally || v.seq != byEvents.seq {
				rt.Fatalf("tally %v at %d, want %v at %d", v.tally, v.seq, byEvents.tally, byEvents.seq)
			}
			for id, n := range byEvents.nodes {
				o := v.nodes[id]
				if o.tally != n.tally || o.begun != n.begun || o.passed != n.passed {
					rt.Fatalf("node %s: %+v, want %+v", id, *o, *n)
				}
			}
		}
	})
}

func mustApply(t *rapid.T, v *view, e *api.Event) {
	if err := v.apply(e); err != nil {
		t.Fatal(err)
	}
}

func TestLastSeqIsFoundFromAnyGuess(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	for range 99 {
		s.tell("state_set", "", epoch)
	}
	runs := api.NewRunsClient(dial(t, f))
	for _, guess := range []int32{0, 1, 50, 98, 99, 100, 101, 102, 150, 4000} {
		got, err := lastSeq(t.Context(), runs, s.run.Id, guess)
		if err != nil || got != 100 {
			t.Errorf("from %d: %d, %v; want 100", guess, got, err)
		}
	}
}

func TestViewsKeepWhatWasUsedLast(t *testing.T) {
	vs := newViews()
	first := vs.of("run-0")
	for i := 1; i < maxViews+50; i++ {
		vs.of(fmt.Sprintf("run-%d", i))
		if vs.of("run-0") != first {
			t.Fatal("a view in use was dropped")
		}
	}
	if n := len(vs.all); n > maxViews || n != vs.lru.Len() {
		t.Errorf("%d views kept, %d listed", n, vs.lru.Len())
	}
}

func TestTimesAndNumbersReadWell(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for want, got := range map[string]string{
		"just now": human.Ago(now.Add(-time.Second), now), "59 s ago": human.Ago(now.Add(-59*time.Second), now), "3 h ago": human.Ago(now.Add(-200*time.Minute), now),
		"2026-09-01": human.Ago(time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC), now),
		"250 ms":     human.Span(250 * time.Millisecond), "9.9 s": human.Span(9990 * time.Millisecond), "1 m 42 s": human.Span(102 * time.Second), "2 h 05 m": human.Span(125 * time.Minute),
		"1,234,567": count(1234567), "-1,000": count(-1000), "999": count(999),
		"$0.0007": dollars(0.0007), "$1.20": dollars(1.2), "": cost(0, 0), "unknown": cost(0, 2), "$1.20 and unknown": cost(1.2, 1), "$0.50": cost(0.5, 0), "a…": clip("abc", 2), "a b": clip(" a\n b ", 9),
		"019aa3f2…89ab": short(idOf(3)),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestALoneWordFiltersByPipeline(t *testing.T) {
	for given, want := range map[string]string{
		"":                    "",
		"nightly":             "pipeline:nightly",
		"status:failed":       "status:failed",
		"label.customer=42":   "label.customer=42",
		"a status:failed":     "a status:failed",
		`label.team="a b"`:    `label.team="a b"`,
		labelFilter("n", "7"): labelFilter("n", "7"),
	} {
		if got := asFilter(given); got != want {
			t.Errorf("%q asks for %q, want %q", given, got, want)
		}
	}
}
