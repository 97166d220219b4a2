package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// byHand is the result that people record for a step whose outcome nobody knows.
const byHand = "settled by hand"

// settled is what people have said of the steps of one run that may run at most
// once and whose outcome was unknown.
type settled struct {
	mu      sync.Mutex
	random  *rand.Rand
	retries map[string]int  // by path
	done    map[string]bool // by path
}

func newSettled(seed uint64, run int) *settled {
	return &settled{
		random:  rand.New(rand.NewPCG(seed, uint64(run)+1<<32)), //nolint:gosec // repeatable, not secret
		retries: map[string]int{}, done: map[string]bool{},
	}
}

// settle lets somebody look what became of a step: it is to be tried again, or
// its result is recorded by hand.
func (l *load) settle(ctx context.Context, path, approval string, s *settled) error {
	req := &orchestratorv1.DecideApprovalRequest{Id: approval, Decision: "done", Value: strconv.Quote(byHand)}
	s.mu.Lock()
	if s.random.IntN(2) == 0 {
		req.Decision, req.Value = "retry", ""
		s.retries[path]++
	} else {
		s.done[path] = true
	}
	s.mu.Unlock()
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := l.approvals.DecideApproval(call, req)
		cancel()
		if err == nil || status.Code(err) == codes.Aborted { // it is decided: by us, in a call whose answer was lost
			return nil
		}
		if err := again(ctx, "settling "+approval, err); err != nil {
			return err
		}
	}
}

// check holds that no step ran more often than people have said.
func (s *settled) check(id string, t *told, effects map[string][]effect, bad func(string, ...any)) (asked int) {
	for _, path := range t.shape.effects {
		asked += s.retries[path]
		if s.done[path] {
			asked++
		}
		if n, most := len(effects[id+"/"+path]), 1+s.retries[path]; n > most {
			bad("run %s: step %s may run at most once, was tried again %d times by people, and ran %d times", id, path, s.retries[path], n)
		}
	}
	return asked
}

// knows reports whether a result is one that was recorded by hand.
func (s *settled) knows(path, output string) bool {
	return s != nil && s.done[path] && output == fmt.Sprint(byHand)
}
