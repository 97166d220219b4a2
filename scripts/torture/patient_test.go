package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// patience is a pipeline that waits for all that a run can wait for, each time
// longer than a run stays in memory for: a timer, signals, people, and a retry's
// delay, in the steps of a loop and of a call too.
func patience() *shape {
	return &shape{
		source: `id: torture-patience
inputs: {ledger: {type: string}}
imports: {review: review.yaml}
steps:
  - id: before
` + command("    ", "sleep 0.05") + `
  - id: nap
    dependencies: [before]
    wait: {for: 3s}
  - id: word
    dependencies: [nap]
    wait: {signal: word}
  - id: flaky
    dependencies: [word]
    retry: {max_attempts: 50, backoff: constant, initial: 2500ms, jitter: none, on: [failed]}
` + command("    ", `[ "$ORCHESTRATOR_ATTEMPT" -gt 1 ] || exit 75`) + `
  - id: rounds
    dependencies: [flaky]
    repeat: {until: iteration == 2, max_iterations: 3}
    steps:
      - id: turn
        wait: {signal: "turn-{{ iteration }}"}
      - id: note
` + command("        ", "sleep 0.05") + `
  - id: question
    dependencies: [rounds]
    ask: {question: Who goes there?}
  - id: review
    dependencies: [question]
    call: review
    with: {ledger: "{{ inputs.ledger }}"}
`,
		files: map[string][]byte{"review.yaml": []byte(`id: review
inputs: {ledger: {type: string}}
steps:
  - id: read
` + command("    ", "sleep 0.05") + `
  - id: consent
    dependencies: [read]
    approve: {question: May it go on?}
outputs: {said: "{{ consent }}"}
`)},
		effects: []string{"before", "flaky", "rounds[0]/note", "rounds[1]/note", "review/read"},
		said:    []string{"word", "rounds[0]/turn", "rounds[1]/turn", "question", "review/consent"},
		others:  []string{"nap", "rounds", "review"},
	}
}

// signals are what the pipeline waits for, by the path of the step.
var signals = map[string]string{"word": "word", "rounds[0]/turn": "turn-1", "rounds[1]/turn": "turn-2"}

// people are those who send signals to one run and answer its questions.
type people struct {
	random *rand.Rand
	sent   chan struct{} // closed when every signal is acknowledged

	mu        sync.Mutex
	said      map[string]bool   // what was sent as a signal's data
	approvals map[string]string // by path
	won       map[string][]string
}

func newPeople(seed uint64, run int) *people {
	return &people{
		random: rand.New(rand.NewPCG(seed, uint64(run)+2)), //nolint:gosec // repeatable, not secret
		sent:   make(chan struct{}), said: map[string]bool{}, approvals: map[string]string{}, won: map[string][]string{},
	}
}

// hesitate waits up to so long that a run has left memory, or not at all.
func (p *people) hesitate(ctx context.Context) error {
	p.mu.Lock()
	d := time.Duration(p.random.Int64N(int64(2500 * time.Millisecond)))
	p.mu.Unlock()
	return pause(ctx, d)
}

// send sends each signal, in any order: some come before their step waits. One
// whose answer was lost is sent again with its key, and now and then one that was
// acknowledged, so that each comes once.
func (l *load) send(ctx context.Context, id string, p *people) error {
	defer close(p.sent)
	names := make([]string, 0, len(signals))
	for _, name := range signals {
		names = append(names, name)
	}
	p.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		if err := p.hesitate(ctx); err != nil {
			return err
		}
		p.mu.Lock()
		p.said[name] = true
		times := 1 + p.random.IntN(2)
		p.mu.Unlock()
		req := &orchestratorv1.SendSignalRequest{Id: id, Name: name, Data: strconv.Quote(name), IdempotencyKey: "the signal " + name}
		for times > 0 {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			_, err := l.client.SendSignal(call, req)
			cancel()
			if err == nil {
				times--
				continue
			}
			if err := again(ctx, "sending "+name+" to "+id, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// asks is the id of the approval that a step begins to wait for, if any.
func asks(e *orchestratorv1.Event) (approval string, err error) {
	if e.GetType() != "step_waiting" {
		return "", nil
	}
	var data struct {
		Step struct {
			Waiting struct {
				Approval string `json:"approval"`
			} `json:"waiting"`
		} `json:"step"`
	}
	err = json.Unmarshal([]byte(e.GetData()), &data)
	return data.Step.Waiting.Approval, err
}

// decide lets two people decide an approval at once.
func (l *load) decide(ctx context.Context, path, approval string, p *people) error {
	p.mu.Lock()
	if other := p.approvals[path]; other != "" && other != approval {
		p.mu.Unlock()
		return fmt.Errorf("the step %s asks twice: %s and %s", path, other, approval)
	}
	p.approvals[path] = approval
	p.mu.Unlock()
	select { // so that what was acknowledged is on record before the run can end
	case <-p.sent:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := p.hesitate(ctx); err != nil {
		return err
	}
	ends := make(chan error, 2)
	for _, who := range []string{"Ada", "Grace"} {
		go func() { ends <- l.say(ctx, who, path, approval, p) }()
	}
	return errors.Join(<-ends, <-ends)
}

// say decides an approval for one of the two. Its comment tells the decision
// apart from the other's, also where the answer to it was lost.
func (l *load) say(ctx context.Context, who, path, approval string, p *people) error {
	req := &orchestratorv1.DecideApprovalRequest{Id: approval, Decision: "answer", Value: strconv.Quote(who), Comment: who}
	if strings.HasSuffix(path, "consent") {
		req.Decision, req.Value = "approve", ""
	}
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := l.approvals.DecideApproval(call, req)
		cancel()
		if err == nil {
			p.mu.Lock()
			p.won[path] = append(p.won[path], who)
			p.mu.Unlock()
			return nil
		}
		if status.Code(err) == codes.Aborted {
			return nil // it is decided, by the other or by what was said before
		}
		if err := again(ctx, "deciding "+approval, err); err != nil {
			return err
		}
	}
}
