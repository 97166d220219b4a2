package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// effect is one line of the ledger: an attempt that really ran.
type effect struct{ run, path, attempt, key, pid string }

// token is what the attempt printed, and what its result must be.
func (e effect) token() string { return e.attempt + "." + e.pid }

// check holds the ledger and what the watchers saw against the API.
func (l *load) check(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	effects, err := readLedger(l.ledger)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	bad := func(format string, args ...any) {
		if wrong++; wrong <= 50 { // more would say no more
			t.Errorf(format, args...)
		}
	}
	stored, err := l.stored(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.runs) != l.config.runs {
		bad("%d submissions were acknowledged with %d different runs", l.config.runs, len(l.runs))
	}
	numbers := map[string]string{}
	for id, run := range stored {
		if _, ok := l.runs[id]; !ok {
			bad("run %s is stored, but was never acknowledged under its idempotency key", id)
		}
		number := run.GetLabels()["number"]
		if other := numbers[number]; other != "" {
			bad("submission %s made two runs: %s and %s", number, id, other)
		}
		numbers[number] = id
	}
	records, results, said, woken, asked := 0, 0, 0, 0, 0
	var longest time.Duration // that a run stood still
	stood := ""
	for id, known := range l.runs {
		run := stored[id]
		if run == nil {
			bad("run %s was acknowledged and is lost", id)
			continue
		}
		if run.GetStatus() != orchestratorv1.Run_COMPLETED {
			bad("run %s is %s (%s): %v", id, run.GetStatus(), run.GetReason(), run.GetError())
		}
		events, err := l.events(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		records += len(events)
		for i := 1; i < len(events); i++ {
			if gap := events[i].GetAt().AsTime().Sub(events[i-1].GetAt().AsTime()); gap > longest {
				longest = gap
				stood = fmt.Sprintf("run %s from event %d, %s %s, to %s %s", id, i, events[i-1].GetType(), events[i-1].GetPath(), events[i].GetType(), events[i].GetPath())
			}
		}
		results += known.checkRun(id, events, effects, bad)
		if p := known.people; p != nil {
			said += len(known.shape.said)
			woken += p.check(id, events, bad)
			if err := l.checkApprovals(ctx, id, p, bad); err != nil {
				t.Fatal(err)
			}
		}
		if s := known.settled; s != nil {
			asked += s.check(id, known, effects, bad)
		}
	}
	checkEffects(effects, bad)

	total, repeated := 0, 0
	for _, list := range effects {
		total += len(list)
		if len(list) > 1 {
			repeated++
		}
	}
	t.Logf("%d runs, %d records, %d step results, each once; %d effects ran, of which %d steps more than once", len(l.runs), records, results, total, repeated)
	t.Logf("longest without a record, by clocks that are wrong: %v, %s", longest, stood)
	t.Logf("%d signals and decisions, each taken once; %d times nobody knew whether a step that may run at most once had run; runs left memory and were woken %d times", said, asked, woken)
}

// checkRun checks the log of one run; it returns how many results it holds.
func (t *told) checkRun(id string, events []*orchestratorv1.Event, effects map[string][]effect, bad func(string, ...any)) int {
	results := map[string]string{}
	for i, e := range events {
		if int(e.GetSeq()) != i+1 {
			bad("run %s: event %d stands where %d belongs", id, e.GetSeq(), i+1)
		}
		_, over := results[e.GetPath()]
		switch {
		case over && e.GetType() == "step_finished":
			bad("run %s: step %s has two results", id, e.GetPath())
		case over && strings.HasPrefix(e.GetType(), "step_"):
			bad("run %s: %s of step %s after its result", id, e.GetType(), e.GetPath())
		case e.GetType() == "step_finished":
			output, err := outputOf(e)
			if err != nil {
				bad("run %s: the result of step %s cannot be read: %v", id, e.GetPath(), err)
			}
			results[e.GetPath()] = output
		}
		if first := i == 0; first != (e.GetType() == "run_created") {
			bad("run %s: event %d is %s", id, e.GetSeq(), e.GetType())
		}
		if last := i == len(events)-1; last != (e.GetType() == "run_finished") {
			bad("run %s: event %d of %d is %s", id, e.GetSeq(), len(events), e.GetType())
		}
	}
	for _, path := range t.shape.effects {
		output, ok := results[path]
		found := false
		for _, e := range effects[id+"/"+path] {
			found = found || e.token() == output
		}
		if ok && !found && !t.settled.knows(path, output) {
			bad("run %s: step %s has the result %q, which no effect in the ledger gave", id, path, output)
		}
	}
	for _, path := range slices.Concat(t.shape.effects, t.shape.said, t.shape.others) {
		if _, ok := results[path]; !ok {
			bad("run %s: step %s has no result", id, path)
		}
	}
	if len(results) > t.shape.results() {
		bad("run %s: %d steps have results, want %d", id, len(results), t.shape.results())
	}
	seen := t.seen
	if len(seen) != len(events) {
		bad("run %s: its watcher saw %d events of %d", id, len(seen), len(events))
		return len(results)
	}
	for i := range seen {
		if !proto.Equal(seen[i], events[i]) {
			bad("run %s: its watcher saw another event %d than stands in the log: %v and %v", id, i+1, seen[i], events[i])
		}
	}
	return len(results)
}

func outputOf(e *orchestratorv1.Event) (string, error) {
	var data struct {
		Step struct {
			Output any `json:"output"`
		} `json:"step"`
	}
	if err := json.Unmarshal([]byte(e.GetData()), &data); err != nil {
		return "", err
	}
	return fmt.Sprint(data.Step.Output), nil
}

// checkEffects holds that a step's key is the same each time and that no attempt
// number was handed out twice.
func checkEffects(effects map[string][]effect, bad func(string, ...any)) {
	for step, list := range effects {
		attempts := map[string]bool{}
		for _, e := range list {
			if e.key != step {
				bad("step %s ran with the idempotency key %s", step, e.key)
			}
			if attempts[e.attempt] {
				bad("step %s ran twice as attempt %s", step, e.attempt)
			}
			attempts[e.attempt] = true
		}
	}
}

// readLedger returns the effects by run/path.
func readLedger(name string) (map[string][]effect, error) {
	file, err := os.Open(name) //nolint:gosec // written by our own steps
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	effects := map[string][]effect{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 5 {
			return nil, fmt.Errorf("the ledger has the line %q", lines.Text())
		}
		e := effect{run: f[0], path: f[1], attempt: f[2], key: f[3], pid: f[4]}
		effects[e.run+"/"+e.path] = append(effects[e.run+"/"+e.path], e)
	}
	return effects, lines.Err()
}

// stored reads every run that the server knows, by id.
func (l *load) stored(ctx context.Context) (map[string]*orchestratorv1.Run, error) {
	runs := map[string]*orchestratorv1.Run{}
	token := ""
	for {
		page, err := l.client.ListRuns(ctx, &orchestratorv1.ListRunsRequest{PageSize: 100, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, r := range page.GetRuns() {
			if runs[r.GetId()] != nil {
				return nil, fmt.Errorf("the list of runs names %s twice", r.GetId())
			}
			runs[r.GetId()] = r
		}
		if token = page.GetNextPageToken(); token == "" {
			return runs, nil
		}
	}
}

// events reads a run's whole log.
func (l *load) events(ctx context.Context, id string) (events []*orchestratorv1.Event, err error) {
	token := ""
	for {
		page, err := l.client.ListEvents(ctx, &orchestratorv1.ListEventsRequest{Id: id, PageSize: 500, PageToken: token})
		if err != nil {
			return nil, err
		}
		events = append(events, page.GetEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return events, nil
		}
	}
}
