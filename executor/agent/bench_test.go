package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
)

// BenchmarkStart is what an agent costs before its first turn and after its last:
// the step's attempt with a model that answers at once, without a store.
func BenchmarkStart(b *testing.B) {
	var n int32
	router := scripted(func(*model.Request) (*model.Response, error) { return says("done") })
	s := newStage(b, nil, counted("look", pipeline.EffectPure, &n))
	runner, err := agent.New(agent.Config{Models: router, Tools: s}).Bind(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		env := executor.Env{Run: "run", Path: "step", Journal: executor.NewJournal(nil, nil), Agent: &executor.AgentEnv{Agent: s.agent, Prompt: "Do it."}}
		if _, err := runner.Run(b.Context(), env); err != nil {
			b.Fatal(err)
		}
	}
}

func scripted(say func(*model.Request) (*model.Response, error)) *model.Router {
	return model.NewRouter(model.Config{
		Logger:   slog.New(slog.DiscardHandler),
		Scripted: model.Func(func(_ context.Context, r *model.Request) (*model.Response, error) { return say(r) }),
	})
}

// server is an engine over SQLite whose agents are told what to say.
func server(tb testing.TB, say func(*model.Request) (*model.Response, error)) (*process, store.Store) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "store.db")
	w := &world{t: tb, open: func() store.Store {
		s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}}
	p := w.serve(scripted(say), pure{})
	tb.Cleanup(p.end)
	return p, p.store
}

// pure gives agents a tool that only tells what it was asked.
type pure struct{}

func (pure) Open(context.Context, executor.Env, tool.Want) (tool.Box, error) {
	return box{{Name: "look", Effect: pipeline.EffectPure, Run: func(_ context.Context, _ executor.Env, c tool.Call) (tool.Result, error) {
		return tool.Text(fmt.Sprintf("seen %v", c.Arguments["x"])), nil
	}}}, nil
}

func manyTurns(turns int) string {
	return fmt.Sprintf("agents:\n  worker: {instructions: Work., tools: [ask_human], limits: {steps: %d}}\nsteps:\n- {id: work, agent: worker, prompt: Do it.}", turns+1)
}

// looksOften calls a tool in each of its turns but the last.
func looksOften(turns int) func(r *model.Request) (*model.Response, error) {
	return func(r *model.Request) (*model.Response, error) {
		if r.Turn == turns {
			return says("done")
		}
		return wants("look", fmt.Sprintf(`{"x":%d}`, 1000+r.Turn))
	}
}

// finishes submits a run and waits for its end.
func finishes(tb testing.TB, p *process, s store.Store, sub pipeline.Submission) *pipeline.Run {
	tb.Helper()
	return ends(tb, s, func(ctx context.Context) (*pipeline.Run, error) { return p.ex.Submit(ctx, sub) })
}

// ends begins a run and waits until it has completed.
func ends(tb testing.TB, s store.Store, begin func(ctx context.Context) (*pipeline.Run, error)) *pipeline.Run {
	tb.Helper()
	done := make(chan struct{}, 1)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	listening := make(chan struct{})
	go func() {
		close(listening)
		_ = s.Listen(ctx, func(store.Bell) {
			select {
			case done <- struct{}{}:
			default:
			}
		})
	}()
	<-listening
	run, err := begin(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if run, err = s.Run(ctx, run.ID); err != nil {
			tb.Fatal(err)
		}
		if run.Status.Final() {
			if run.Status != pipeline.RunCompleted {
				tb.Fatalf("%s: %v", run.Status, run.Error)
			}
			return run
		}
		select {
		case <-done:
		case <-time.After(20 * time.Millisecond): // a bell may be lost
		}
	}
}

// BenchmarkTurn is what a turn with one call of a tool costs on SQLite.
func BenchmarkTurn(b *testing.B) {
	const turns = 100
	p, s := server(b, looksOften(turns))
	sub := submission(b, p.ex, manyTurns(turns))
	finishes(b, p, s, sub)
	b.ResetTimer()
	n := 0
	for b.Loop() {
		finishes(b, p, s, sub)
		n += turns
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "us/turn")
}

// What is stored of a turn does not grow with the turns before it.
func TestWhatIsStoredPerTurnIsConstant(t *testing.T) {
	const turns = 200
	p, s := server(t, looksOften(turns))
	run := finishes(t, p, s, submission(t, p.ex, manyTurns(turns)))
	var sizes [turns + 1]int
	turn := 0
	for e, err := range s.StepEvents(t.Context(), run.ID, "work", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if c := e.Data.Call; c != nil {
			turn = int(c.Turn)
			sizes[turn] += len(pipeline.AppendData(nil, &e.Data))
		}
	}
	if turn != turns {
		t.Fatalf("%d turns were recorded", turn)
	}
	for i := 3; i < turns; i++ {
		if grown := sizes[i] - sizes[2]; grown > 64 { // numbers get longer
			t.Fatalf("turn %d takes %d bytes, the third one %d", i, sizes[i], sizes[2])
		}
	}
	t.Logf("%d bytes a turn", sizes[turns/2])
}

// An agent's start costs no more than 64 KiB of memory.
func TestAnAgentIsSmall(t *testing.T) {
	r := testing.Benchmark(BenchmarkStart)
	if n := r.AllocedBytesPerOp(); n > 64<<10 {
		t.Errorf("%d bytes", n)
	}
	t.Log(r, r.MemString())
}

// What a tool has given is stored once, and the prompt that tells it is whole.
func TestAResultIsStoredOnce(t *testing.T) {
	const mark = "a result that nobody else gives"
	var n int32
	look := counted("look", pipeline.EffectPure, &n)
	look.Run = func(context.Context, executor.Env, tool.Call) (tool.Result, error) { return tool.Text(mark), nil }
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		if r.Turn < 3 {
			return wants("look", `{"x":1}`)
		}
		return says("done")
	}, look)
	if _, err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := 0
	for i := range s.events {
		stored += strings.Count(string(pipeline.AppendData(nil, &s.events[i].Data)), mark)
	}
	if stored != 3 {
		t.Errorf("3 results are stored %d times", stored)
	}
	last := s.events[len(s.events)-1].Data.Call
	r, err := model.Conversation(s.events, last.N)
	if err != nil {
		t.Fatal(err)
	}
	if got, sent := pipeline.EncodeValue(plainOf(t, r.Messages)), pipeline.EncodeValue(plainOf(t, s.asked[3].Messages)); string(got) != string(sent) {
		t.Errorf("rebuilt %s\nsent    %s", got, sent)
	}
	if _, err := s.run(t.Context()); err != nil || len(s.asked) != 4 {
		t.Errorf("a later attempt asked %d times: %v", len(s.asked)-4, err)
	}
}

func plainOf(t *testing.T, messages []model.Message) any {
	t.Helper()
	b, err := json.Marshal(messages)
	if err != nil {
		t.Fatal(err)
	}
	v, err := pipeline.DecodeValue(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
