package pipeline_test

import (
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestRetryDelays(t *testing.T) {
	r := &pipeline.Retry{MaxAttempts: 3, Initial: time.Second, Jitter: "none"}
	for failed, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second} {
		if got, ok := r.Delay(pipeline.Failuref(pipeline.CategorySystem, "x"), failed, 0.5); !ok || got != want {
			t.Errorf("after %d failures: %v %v, want %v", failed, got, ok, want)
		}
	}
	if _, ok := r.Delay(pipeline.Failuref(pipeline.CategorySystem, "x"), 3, 0); ok {
		t.Error("the third failure of three attempts is repeated")
	}
	if _, ok := r.Delay(pipeline.Failuref(pipeline.CategoryFailed, "x"), 1, 0); ok {
		t.Error("a reported failure is repeated without being asked for")
	}
	f := pipeline.Failuref(pipeline.CategoryRateLimit, "x")
	f.RetryAfter = 7
	if got, ok := r.Delay(f, 1, 0); !ok || got != 7*time.Second {
		t.Errorf("Retry-After is not honoured: %v", got)
	}
}
