package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const (
	agents    = 1000 // under way at once
	turns     = 5    // of each
	thinks    = 2 * time.Second
	longTurns = 200
)

// agents measures agents whose model is a script: what is left is the engine's own.
func (b *bench) agents(ctx context.Context) error {
	return errors.Join(b.manyAgents(ctx), b.oneAgent(ctx))
}

// script writes the answers of a model: each turn but the last calls a tool.
func script(dir, name string, turns int, delay time.Duration) (string, error) {
	var s strings.Builder
	s.WriteString("rules:\n")
	for i := range turns - 1 {
		fmt.Fprintf(&s, "  - {when: {turn: %d}, delay: %s, tool_calls: [{name: data_filter, arguments: {data: [{n: %d}], where: {n: 3}}}]}\n", i, delay, 1000+i)
	}
	fmt.Fprintf(&s, "  - {text: done, delay: %s}\n", delay)
	file := filepath.Join(dir, name)
	return file, os.WriteFile(file, []byte(s.String()), 0o600)
}

// agentOf is a pipeline of one agent that goes on for so many turns.
func agentOf(turns int) string {
	return fmt.Sprintf("id: bench-agent\nagents:\n  worker: {instructions: You work., tools: [data.filter], limits: {steps: %d, repeat_calls: 1000}}\n"+
		"steps:\n  - {id: work, agent: worker, prompt: Do it.}\n", turns)
}

// withScript calls f with a server on a fresh database whose models a script answers.
func (b *bench) withScript(ctx context.Context, part string, turns int, delay time.Duration, f func(*session, *postgres) error) error {
	dir, err := os.MkdirTemp("", "orchestrator-bench")
	if err != nil {
		return err
	}
	file, err := script(dir, part+".yaml", turns, delay)
	if err == nil {
		err = b.withServer(ctx, part, f, "ORCHESTRATOR_SCRIPT="+file)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// manyAgents measures a thousand agents at once on PostgreSQL: whose model answers at
// once, and whose model takes two seconds for each turn.
func (b *bench) manyAgents(ctx context.Context) error {
	source := agentOf(turns)
	err := b.withScript(ctx, "agents", turns, 0, func(s *session, pg *postgres) error {
		if _, err := s.runAll(ctx, source, 50); err != nil { // warm
			return err
		}
		before, _ := s.memory()
		var rates []float64
		for range b.rounds {
			took, err := s.runAll(ctx, source, agents)
			if err != nil {
				return err
			}
			rates = append(rates, agents*turns/took.Seconds())
		}
		b.atLeast("1,000 agents of 5 turns at once", median(rates), "turns/s", 2000)
		if _, peak := s.memory(); peak > 0 {
			b.add("memory that they add at most", peak-before, "MiB")
		}
		return nil
	})
	return errors.Join(err, b.withScript(ctx, "thinking", turns, thinks, func(s *session, pg *postgres) error {
		took, err := s.runAll(ctx, source, agents)
		if err != nil {
			return err
		}
		b.atMost("1,000 agents of 5 turns whose model takes 2 s: beyond its 10 s", took.Seconds()-turns*thinks.Seconds(), "s", 5)
		return nil
	}))
}

// runAll submits n equal runs and waits until all have completed.
func (s *session) runAll(ctx context.Context, source string, n int) (time.Duration, error) {
	done, err := s.completed(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.submitMany(ctx, source, n); err != nil {
		return 0, err
	}
	for done += n; ; {
		now, err := s.completed(ctx)
		if err != nil {
			return 0, err
		}
		if now >= done {
			return time.Since(began), nil
		}
		if err := sleep(ctx, 25*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// oneAgent measures a single agent on the embedded store: what it costs to begin,
// what a turn costs, and what is stored of it.
func (b *bench) oneAgent(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "orchestrator-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := script(dir, "long.yaml", longTurns, 0)
	if err != nil {
		return err
	}
	s, err := b.start(ctx, "", "ORCHESTRATOR_SCRIPT="+file)
	if err != nil {
		return err
	}
	err = func() error {
		var first, each, kept []float64
		for range 5 {
			at, sizes, err := s.turns(ctx, agentOf(longTurns))
			if err != nil {
				return err
			}
			each = append(each, at[len(at)-1].Sub(at[0]).Seconds()*1e3/float64(len(at)-1))
			early, late := 0, 0
			for i := range 50 {
				early += sizes[2+i]
				late += sizes[len(sizes)-2-i]
			}
			first, kept = append(first, float64(early)/50), append(kept, float64(late)/50)
		}
		b.atMost("a turn of an agent on SQLite, with a call of a tool", median(each), "ms", 2)
		b.add("stored of a turn, mean of the first 50 of 200", median(first), "bytes")
		b.atMost("stored of a turn, the last 50 against the first 50", median(kept)/median(first), "", 1.05)
		return nil
	}()
	return errors.Join(err, s.end())
}

// turns runs one agent, and tells when each of its turns was recorded and how many
// bytes its events have taken.
func (s *session) turns(ctx context.Context, source string) (at []time.Time, sizes []int, err error) {
	run, err := s.submit(ctx, source)
	if err != nil {
		return nil, nil, err
	}
	err = s.watch(ctx, run.GetId(), func(e *orchestratorv1.Event) {
		switch e.GetType() {
		case "model_called":
			at, sizes = append(at, e.GetAt().AsTime()), append(sizes, len(e.GetData()))
		case "tool_called":
			sizes[len(sizes)-1] += len(e.GetData())
		}
	})
	if err == nil && len(at) != longTurns {
		err = fmt.Errorf("run %s has %d turns, not %d", run.GetId(), len(at), longTurns)
	}
	return at, sizes, err
}
