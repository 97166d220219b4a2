package agent_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestAnAgentKeepsWithinItsMoney(t *testing.T) {
	var n int32
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		a, err := wants("helper", fmt.Sprintf(`{"prompt":"%d"}`, r.Turn))
		if r.Agent == "helper" { // what is spent within its calls counts, too
			a, err = says("helped")
		}
		a.Usage = &pipeline.Usage{InputTokens: 1, OutputTokens: 1, CostUSD: 0.1}
		return a, err
	}, counted("look", pipeline.EffectPure, &n))
	s.agent.Limits.USD = 0.35
	s.agent.Agents = []pipeline.Agent{{Name: "helper"}}
	for range 2 { // also in a later attempt
		if _, err := s.run(t.Context()); failure(err).Reason != agent.ReasonUSD || !strings.Contains(failure(err).Message, "0.4000 USD") {
			t.Fatal(err)
		}
		if len(s.asked) != 4 {
			t.Fatalf("asked %d times", len(s.asked))
		}
	}
}

func TestAnAgentKeepsWithinItsTime(t *testing.T) {
	for _, within := range []string{"worker", "helper"} {
		t.Run(within, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := tool.Tool{Name: "slow", Effect: pipeline.EffectPure, Run: func(ctx context.Context, _ executor.Env, _ tool.Call) (tool.Result, error) {
					select {
					case <-time.After(time.Hour):
						return tool.Text("late"), nil
					case <-ctx.Done():
						return tool.Result{}, ctx.Err()
					}
				}}
				s := newStage(t, func(r *model.Request) (*model.Response, error) {
					switch {
					case r.Agent == "worker" && r.Turn == 0 && within == "helper":
						return wants("helper", `{"prompt":"go"}`)
					case r.Turn == 0:
						return wants("slow", `{}`)
					}
					return says(strings.Join(results(r), " "))
				}, slow)
				helper := pipeline.Agent{Name: "helper"}
				if limit := 10 * time.Minute; within == "helper" {
					helper.Limits.Wall = limit
				} else {
					s.agent.Limits.Wall = limit
				}
				s.agent.Agents = []pipeline.Agent{helper}
				began := time.Now()
				v, err := s.run(t.Context())
				if took := time.Since(began); took != 10*time.Minute {
					t.Errorf("it took %s", took)
				}
				if within == "worker" && failure(err).Reason != agent.ReasonWall {
					t.Error(err)
				}
				if within == "helper" && (err != nil || !strings.Contains(fmt.Sprint(v), "failed: ") || !strings.Contains(fmt.Sprint(v), "10m")) {
					t.Errorf("the agent around it is told %v, %v", v, err)
				}
			})
		})
	}
}

func TestCallsRunSoManyAtATimeInTheirOrder(t *testing.T) {
	for _, most := range []int{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			var mu sync.Mutex
			running, peak := 0, 0
			var order []string
			full := make(chan struct{})
			one := tool.Tool{Name: "one", Effect: pipeline.EffectPure, Run: func(_ context.Context, _ executor.Env, c tool.Call) (tool.Result, error) {
				mu.Lock()
				running++
				peak = max(peak, running)
				order = append(order, c.ID)
				if len(order) == most {
					close(full)
				}
				mu.Unlock()
				<-full // as many as may are at work
				mu.Lock()
				running--
				mu.Unlock()
				return tool.Text(c.ID), nil
			}}
			s := newStage(t, callsThenTells("one", `{"x":0}`, "one", `{"x":1}`, "one", `{"x":2}`, "one", `{"x":3}`, "one", `{"x":4}`), one)
			s.agent.Limits.Parallel = most
			v, err := s.run(t.Context())
			if err != nil || v != "c0 | c1 | c2 | c3 | c4" || peak != most {
				t.Errorf("%v, %v; %d at once", v, err, peak)
			}
			if got := strings.Join(order, " "); most == 1 && got != "c0 c1 c2 c3 c4" {
				t.Errorf("they began in the order %s", got)
			}
		})
	}
}

// A model that answers with far more than anybody asked for, or calls far more
// tools than may be called at once, does no harm.
func TestTooMuchOfAModelIsBounded(t *testing.T) {
	var n int32
	var pairs []string
	for i := range 200 {
		pairs = append(pairs, "look", fmt.Sprintf(`{"x":%d}`, i))
	}
	s := newStage(t, callsThenTells(pairs...), counted("look", pipeline.EffectPure, &n))
	v, err := s.run(t.Context())
	if text, _ := v.(string); err != nil || n != 64 || strings.Count(text, "At most 64 calls") != 136 {
		t.Errorf("%d calls; %.100v, %v", n, v, err)
	}
	huge := strings.Repeat("ä🐝 ", 1<<20)
	s = newStage(t, func(*model.Request) (*model.Response, error) { return says(huge) })
	if v, err := s.run(t.Context()); err != nil || v != strings.TrimSpace(huge) && v != huge {
		t.Errorf("%d bytes, %v", len(fmt.Sprint(v)), err)
	}
}
