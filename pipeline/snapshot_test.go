package pipeline_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// next is what has become possible; for the restored machine it is the same.
func (d *driver) next() []pipeline.Task {
	d.t.Helper()
	list := d.m.Next()
	if d.twin != nil {
		if diff := cmp.Diff(list, d.twin.Next(), sameTask); diff != "" {
			d.t.Fatalf("the restored machine gives other tasks:\n%s\n%s", diff, d.dump())
		}
	}
	return list
}

var sameTask = cmp.Options{cmpopts.IgnoreUnexported(pipeline.Task{}), cmp.Comparer(func(a, b *pipeline.StepDef) bool { return a == b }), cmpopts.EquateEmpty()}

// snapshot takes a snapshot and proves that a machine restored from it stands
// where this one does. From then on it is told the same.
func (d *driver) snapshot() {
	d.t.Helper()
	d.tasks = append(d.tasks, d.next()...)
	s := d.m.Snapshot()
	d.kept, d.keptAt = s.Encode(), len(d.events)
	if int(s.Seq) != d.keptAt {
		d.t.Fatalf("the snapshot knows %d events of %d", s.Seq, d.keptAt)
	}
	twin, err := pipeline.RestoreMachine(d.plan, pipeline.Run{ID: "r"}, d.kept)
	if err != nil {
		d.t.Fatalf("restore: %v\n%s", err, d.dump())
	}
	if again := twin.Snapshot().Encode(); !slices.Equal(again, d.kept) {
		d.t.Fatalf("a snapshot of the restored machine is another one\n%s", d.dump())
	}
	d.equals(twin, "restored")
	d.knowsTheSame(twin)
	d.twin = twin
}

// knowsTheSame compares what a new owner asks.
func (d *driver) knowsTheSame(twin *pipeline.Machine) {
	d.t.Helper()
	type knowledge struct {
		Seq, Critical            int32
		Begun                    int
		Late, Handed, Aborting   bool
		Uploads                  pipeline.Digest
		Files                    *pipeline.WorkspaceRef
		Answers                  map[string]any
		Signal                   any
		Tries, Deaths, Cancelled map[pipeline.Path]int
		Decisions                map[pipeline.Path]*pipeline.Decision
		Rules                    map[pipeline.Path]*pipeline.Rule
		Outputs                  map[string]any
	}
	of := func(m *pipeline.Machine) knowledge {
		k := knowledge{
			Seq: m.Seq, Critical: m.Critical(), Begun: m.Begun(), Late: m.Late(), Handed: m.HandedOver(), Aborting: m.Aborting(),
			Uploads: m.Uploads(), Files: m.Files(), Answers: m.Answers(), Outputs: m.RunOutputs(),
			Tries: map[pipeline.Path]int{}, Deaths: map[pipeline.Path]int{}, Cancelled: map[pipeline.Path]int{},
			Decisions: map[pipeline.Path]*pipeline.Decision{}, Rules: map[pipeline.Path]*pipeline.Rule{},
		}
		k.Signal, _ = m.Signal("s")
		for _, s := range d.view.Steps {
			k.Tries[s.Path], k.Deaths[s.Path], k.Decisions[s.Path] = m.Tries(s.Path), m.Deaths(s.Path), m.Decision(s.Path)
			if m.Cancels(s.Path) {
				k.Cancelled[s.Path] = 1
			}
			if r := m.Rule(s.Path); r != nil {
				k.Rules[s.Path] = r
			}
		}
		return k
	}
	if diff := cmp.Diff(of(d.m), of(twin)); diff != "" {
		d.t.Fatalf("the restored machine knows something else:\n%s\n%s", diff, d.dump())
	}
	view := twin.View()
	for _, s := range view.Steps {
		if diff := cmp.Diff(d.view.Step(s.Path), s); diff != "" {
			d.t.Fatalf("its view has another step %s:\n%s", s.Path, diff)
		}
	}
	if len(d.view.Steps) != twin.Begun() || view.Seq != d.view.Seq {
		d.t.Fatalf("%d steps have begun, the machine says %d", len(d.view.Steps), twin.Begun())
	}
	last := -1
	for _, s := range view.Steps {
		i := slices.IndexFunc(d.view.Steps, func(x *pipeline.Step) bool { return x.Path == s.Path })
		if i <= last {
			d.t.Fatalf("step %s stands at the wrong place of the view", s.Path)
		}
		last = i
	}
}

// restored lets a new process begin with the snapshot that is kept, if it holds no
// more than the log does. It returns how many events that knows.
func (d *driver) restored(old *driver, durable int) int {
	d.t.Helper()
	if old.kept == nil || old.keptAt > durable {
		return 0
	}
	m, err := pipeline.RestoreMachine(old.plan, pipeline.Run{ID: "r"}, old.kept)
	if err != nil {
		d.t.Fatalf("restore: %v", err)
	}
	d.m = m
	d.kept, d.keptAt = old.kept, old.keptAt
	d.events = append(d.events, old.events[:old.keptAt]...)
	for i := range d.events {
		d.view.Apply(&d.events[i])
	}
	return old.keptAt
}

// Where a snapshot cannot be used, its reader is told, and folds the log.
func TestSnapshotsThatCannotBeUsed(t *testing.T) {
	plan := planOf(graph(act("a"), loop(pipeline.KindFor, "l", graph(act("b")), pipeline.Loop{})))
	d := started(t, plan, script{})
	whole := d.m.Snapshot().Encode()
	if _, err := pipeline.RestoreMachine(plan, pipeline.Run{}, whole); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"cut off":           whole[:len(whole)-1],
		"of another format": append([]byte{pipeline.SnapshotFormat + 1}, whole[1:]...),
		"longer":            append(slices.Clone(whole), 0),
		"of another plan":   newDriver(t, planOf(graph(act("x"), act("y"), act("z"))), script{}.choose).m.Snapshot().Encode(),
	} {
		if _, err := pipeline.RestoreMachine(plan, pipeline.Run{}, b); !errors.Is(err, pipeline.ErrSnapshot) {
			t.Errorf("a snapshot that is %s: %v", name, err)
		}
	}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 0x41
		if _, err := pipeline.RestoreMachine(plan, pipeline.Run{}, b); !errors.Is(err, pipeline.ErrSnapshot) {
			t.Fatalf("damage at byte %d is not noticed: %v", i, err)
		}
	}
}

// A snapshot holds values as they would be read from the log.
func TestSnapshotKeepsValues(t *testing.T) {
	values := map[string]any{
		"null": nil, "yes": true, "no": false, "int": int64(-5), "big": int64(1) << 62, "float": 3.0, "text": "größe\x00", "empty": "",
		"list": []any{int64(1), []any{}, map[string]any{}}, "deep": map[string]any{"a": map[string]any{"b": []any{nil}}},
		"names": []string{"x", "y"}, "number": 7, "torn": "a\xff\xfeb",
	}
	plan := planOf(graph(act("a"), act("b", 0)))
	d := newDriver(t, plan, script{}.choose)
	d.record(pipeline.StepStarted, "a", 1, pipeline.Data{Kind: pipeline.KindAction, Parameters: values})
	d.record(pipeline.StepFinished, "a", 1, pipeline.Data{
		Status: pipeline.StepCompleted, Output: values, Usage: &pipeline.Usage{InputTokens: 3, CostUSD: 0.5}, Model: "m", Cached: true,
		Published: []pipeline.Version{{Artifact: "r", Version: 1, Producer: "a", Value: "x", Blob: "sha256:1", Size: 9}},
	})
	m, err := pipeline.RestoreMachine(plan, pipeline.Run{ID: "r"}, d.m.Snapshot().Encode())
	if err != nil {
		t.Fatal(err)
	}
	folded := d.refold(0).m
	if diff := cmp.Diff(folded.Step("a"), m.Step("a")); diff != "" {
		t.Errorf("the step is another one:\n%s", diff)
	}
	if diff := cmp.Diff(folded.Versions("a", "r"), m.Versions("a", "r")); diff != "" {
		t.Errorf("the artifact is another one:\n%s", diff)
	}
}

// The machine goes on while a snapshot of it is encoded.
func TestSnapshotStandsStill(t *testing.T) {
	plan := planOf(graph(loop(pipeline.KindFor, "l", graph(act("b")), pipeline.Loop{Parallel: -1})))
	d := newDriver(t, plan, script{"items l": 4}.choose)
	d.pump()
	d.endLeaf("l[2]/b")
	d.pump()
	s := d.m.Snapshot()
	before := s.Encode()
	d.finishRun()
	if !slices.Equal(before, s.Encode()) {
		t.Error("a snapshot changes with the machine that it was taken of")
	}
}

// What is added to a run's state must be added to its snapshots, or follow from
// what stands there: this test knows every field, and fails when there is another.
func TestSnapshotKnowsEveryField(t *testing.T) {
	known := map[string]string{
		"Machine": "Plan Run Seq unit dir insts bodies queue compactAt busy waiting finishing cancel aborts deaths signals approved sessions answers answer contents answered autoUSD homes " +
			"uploads trace files late handed critical begun order",
		"unit":  "def call inputs vars state isState root finally soft abort versions consumed",
		"frame": "body info unit owner parent final index prefix space insts left failed halt jumps order",
		"space": "tops visits",
		"inst": "def frame path step visit turn waits pos asked busy stop token out order number skip tries base offered due since rule ruled before " +
			"decision journal block",
		"block": "arm unit active items opened result errs failed halted ended close testing collecting",
		"Step": "Path ID Kind Action Status Reason Attempt Parameters Output Error StartedAt FinishedAt Worker Remote Lost Model Usage Called CacheHit ReusedFrom Children Waiting " +
			"Artifacts",
	}
	if diff := cmp.Diff(known, pipeline.FieldsOf()); diff != "" {
		t.Errorf("write and read what is new in snapshot.go and restore.go, or see that it follows from the rest; then name it here:\n%s", diff)
	}
}

// FuzzRestoreMachine: no bytes make the restoring process break down, and what
// is restored can be asked.
func FuzzRestoreMachine(f *testing.F) {
	plan := planOf(
		sequence(act("a"), loop(pipeline.KindFor, "l", graph(act("b"), kind(pipeline.KindWait, "w")), pipeline.Loop{Parallel: 2}), call("c", 0),
			branches(pipeline.KindIf, "i", graph(act("y")), graph(act("n"))), loop(pipeline.KindWhile, "h", graph(act("x")), pipeline.Loop{Max: 3})),
		&pipeline.Unit{ID: "u", Root: graph(kind(pipeline.KindAsk, "q"), act("z")), Finally: graph(act("f"))},
	)
	d := newDriver(f, plan, script{"items l": 3}.choose)
	for n := 0; !d.m.Run.Status.Final() && n < 60; n++ {
		f.Add(d.m.Snapshot().Encode())
		if !d.answerOne() && !d.end() {
			break
		}
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) > 4 { // the sum would hide all else
			sum := crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli))
			binary.BigEndian.PutUint32(b[len(b)-4:], sum)
		}
		m, err := pipeline.RestoreMachine(plan, pipeline.Run{ID: "r"}, b)
		if err != nil {
			return
		}
		m.Next()
		m.Waits()
		m.Idle()
		m.View()
		m.Snapshot().Encode()
		_ = m.Apply(&pipeline.Event{Seq: m.Seq + 1, Type: pipeline.RunResumed, At: time.Unix(1, 0), Data: pipeline.Data{Reason: pipeline.ReasonOwnerDied}})
		_ = m.Apply(&pipeline.Event{Seq: m.Seq + 1, Type: pipeline.SignalReceived, Data: pipeline.Data{Signal: pipeline.SignalCancel}})
		m.Next()
	})
}

var _ testingT = (*rapid.T)(nil)
