package executor_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var (
	simSeed  = flag.Int64("sim.seed", -1, "simulate this seed alone")
	simFrom  = flag.Int64("sim.from", 0, "simulate from this seed on")
	simSeeds = flag.Int64("sim.seeds", 10_000, "how many seeds to simulate")
	simTime  = flag.Duration("sim.time", 0, "simulate for so long, whatever the seeds")
)

// simKinds is how many pipelines the seeds of a block of ten thousand share, so
// that a pipeline is compiled once and the result that it should have is known.
const simKinds = 1000

func pipelineNumber(seed uint64) int { return int(seed/10_000*simKinds + seed%simKinds) }

var simWants sync.Map // of *simResult, by number of pipeline

// wantOf is how the pipeline ends without faults; it is simulated once.
func wantOf(t *testing.T, number int) *simResult {
	t.Helper()
	if known, ok := simWants.Load(number); ok {
		return known.(*simResult)
	}
	p := pipelineOf(number)
	if p.poison {
		return nil
	}
	w := newSimWorld(uint64(number), p)
	w.calm = true
	inBubble(t, w, nil)
	if len(w.violations) > 0 || len(w.db.order) != 1 {
		t.Fatalf("pipeline %d fails without faults: %v\n%s\n%s", number, w.violations, p.src, w.tale())
	}
	r := w.db.order[0]
	want := &simResult{status: r.run.Status, outputs: string(pipeline.EncodeValue(r.run.Outputs))}
	simWants.Store(number, want)
	return want
}

// forgetPipelines forgets those before a number, which no seed asks for any more.
func forgetPipelines(before int) {
	for _, m := range []*sync.Map{&simPipelines, &simWants} {
		m.Range(func(k, _ any) bool {
			if n, _ := k.(int); n < before {
				m.Delete(k)
			}
			return true
		})
	}
}

func newSimWorld(seed uint64, p *simPipeline) *simWorld {
	return &simWorld{
		seed: seed, pipeline: p, ledger: map[string]*simEntry{}, acked: map[pipeline.RunID]bool{}, byKey: map[string]pipeline.RunID{},
		meddled: map[pipeline.RunID]bool{}, count: simCount{faults: map[string]int{}},
	}
}

// inBubble simulates in virtual time. That the bubble ends at all shows that no
// goroutine of a replica is left.
func inBubble(t *testing.T, w *simWorld, want *simResult) {
	t.Helper()
	defer func() {
		if *simSeed >= 0 && want != nil {
			return // the panic shows who is left
		}
		if p := recover(); p != nil {
			w.violation("the simulation does not end: %v", p)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		w.simulate()
	})
	if len(w.violations) == 0 {
		w.check(want)
	}
}

// simulate runs one seed and returns its world.
func simulate(t *testing.T, seed uint64, flaw simFlaws) *simWorld {
	t.Helper()
	number := pipelineNumber(seed)
	want := wantOf(t, number)
	w := newSimWorld(seed, pipelineOf(number))
	w.flaw = flaw
	inBubble(t, w, want)
	return w
}

// raced reports whether the race detector is at work, with which all takes longer.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

func report(t *testing.T, w *simWorld) {
	t.Helper()
	t.Errorf("seed %d: %s\n%s\n%+v\n%s\nsimulate it again with -sim.seed=%d", w.seed, w.violations[0], w.pipeline.src, w.weather, w.tale(), w.seed)
}

// Whatever goes wrong, at whatever moment, the promises hold: seeds of random
// pipelines, replicas and faults, in virtual time.
func TestSim(t *testing.T) {
	if *simSeed >= 0 {
		w := simulate(t, uint64(*simSeed), simFlaws{})
		if len(w.violations) > 0 {
			report(t, w)
		} else if testing.Verbose() {
			fmt.Printf("%s\n%+v\n%s", w.pipeline.src, w.weather, w.tale())
		}
		return
	}
	seeds := *simSeeds
	if testing.Short() || raced() {
		seeds = min(seeds, 300)
	}
	begun, total := time.Now(), newSimTotal()
	var next atomic.Int64
	next.Store(*simFrom)
	var failed atomic.Bool
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for !failed.Load() {
				n := next.Add(1) - 1
				if *simTime > 0 && time.Since(begun) > *simTime || *simTime == 0 && n >= *simFrom+seeds {
					return
				}
				if n%10_000 == 0 {
					forgetPipelines(pipelineNumber(uint64(n)) - simKinds)
				}
				w := simulate(t, uint64(n), simFlaws{})
				if len(w.violations) > 0 && !failed.Swap(true) {
					report(t, w)
				}
				total.add(&w.count)
				if *simTime > 0 && total.seeds.Load()%2000 == 0 {
					fmt.Fprintf(os.Stderr, "%s: %s\n", time.Since(begun).Round(time.Second), total)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%s: %s", time.Since(begun).Round(time.Millisecond), total)
}

// A simulation that finds nothing would prove nothing: each defect of the store
// is found within a few hundred seeds.
func TestSimFindsFlaws(t *testing.T) {
	if raced() {
		t.Skip("the race detector has seen the same goroutines in TestSim")
	}
	for name, flaw := range map[string]simFlaws{
		"a store that fences nobody":                 {fencesNobody: true},
		"parking that is deaf to messages":           {parksDeaf: true},
		"timers that are forgotten":                  {forgetsTimers: true},
		"bells that are lost, without a safety net":  {losesBells: true},
		"a record that is acknowledged and not kept": {losesRecord: true},
		"runs that are taken from the living":        {freesTheLiving: true},
		"messages that are found late":               {findsLate: true},
		"reports of attempts that are lost":          {losesReports: true},
	} {
		t.Run(name, func(t *testing.T) {
			const enough = 3000
			for seed := range uint64(enough) {
				if w := simulate(t, seed, flaw); len(w.violations) > 0 {
					t.Logf("found by seed %d: %.200s", seed, w.violations[0])
					return
				}
			}
			t.Errorf("%d seeds have not found it", enough)
		})
	}
}

// Promise 7 holds, too, where a step kills its server before its start can be
// recorded.
func TestSimStopsAStepThatKillsAtOnce(t *testing.T) {
	w := newSimWorld(4, pipelineOf(4))
	w.calm = true
	inBubble(t, w, nil)
	if len(w.violations) > 0 {
		t.Fatalf("%v\n%s", w.violations, w.tale())
	}
	r := w.db.order[0]
	if e := w.ledger[string(r.run.ID)+"/s2"]; r.run.Status != pipeline.RunFailed || len(e.attempts) > 4 {
		t.Errorf("the run is %s, and its step was begun %d times", r.run.Status, len(e.attempts))
	}
}
