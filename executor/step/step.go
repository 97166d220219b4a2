// Package step holds the built-in step kinds, one file each: a struct of
// parameters with a Run method, and the text that is its manual page. All is
// the one list of the actions that pipelines may name; Command runs the command
// steps of the language.
//
// Steps work in the run's workspace and cannot leave it. What they give is
// bounded: a value of at most 16 MiB, a log of at most 64 MiB per attempt.
//
//	catalog := map[string]executor.Action{}
//	for _, a := range step.All(step.Config{Model: provider}) {
//		catalog[a.Spec.Key] = a
//	}
package step

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// Config is what steps need from the process they run in.
type Config struct {
	// Model answers the steps that ask a model; nil: such steps fail and say
	// how to name one.
	Model model.Caller
	// Transport carries the http steps; nil: one of its own, with the proxy
	// that the process's environment names.
	Transport http.RoundTripper
	// Sandbox locks in what steps run where they, or their action, say so; nil:
	// such steps fail.
	Sandbox *sandbox.Set
}

// All is the list of the actions, in the order of the manual.
func All(cfg Config) []executor.Action {
	return append([]executor.Action{
		generateAction(cfg, "generate"),
		generateAction(cfg, "generate_text"),
		structuredAction(cfg),
		batchPredictAction(cfg),
		parseCodeAction(),
		complexityAction(),
		styleAction(),
		securityAction(),
		transformAction(),
		loadDataAction(),
		profileDataAction(),
		analyzeStatisticsAction(),
		planVisualizationsAction(),
		createAnalysisReportAction(),
		prepareDataAction(),
		filterAction(),
		aggregateAction(),
		joinAction(),
		convertAction(),
		validateAction(),
		filesystemAction[readFile](),
		filesystemAction[writeFile](),
		filesystemAction[appendFile](),
		filesystemAction[listFiles](),
		copyAction(),
		moveAction(),
		deleteAction(),
		executeAction(cfg),
		httpAction(cfg),
		debugAction(),
	}, judgeActions(cfg)...)
}

const (
	// maxValue bounds what one step gives, in bytes.
	maxValue = 16 << 20
	// maxLog bounds what one attempt writes to its log, in bytes.
	maxLog = 64 << 20
)

// The reasons of failures that programs may ask for.
const (
	reasonTooLarge = "output_too_large"
	reasonEscapes  = "path_escapes"
)

// prepare adds what the process supplies to the runners that an action binds.
func prepare[T executor.Runner](a executor.Action, set func(*T)) executor.Action {
	bind := a.Bind
	a.Bind = func(params map[string]any) (executor.Runner, error) {
		r, err := bind(params)
		if err != nil {
			return nil, err
		}
		t, ok := r.(T)
		if !ok {
			return nil, fmt.Errorf("bind %s: got a %T", a.Spec.Key, r)
		}
		set(&t)
		return t, nil
	}
	return a
}

// invalid is a failure that no repetition heals.
func invalid(format string, args ...any) *pipeline.Failure {
	return pipeline.Failuref(pipeline.CategoryValidation, format, args...)
}

// tooLarge is the failure of a step that would give more than it may.
func tooLarge(format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryFailed, format, args...)
	f.Reason = reasonTooLarge
	return f
}

// ended tells why ctx has ended.
func ended(ctx context.Context) *pipeline.Failure {
	cause := context.Cause(ctx)
	var f *pipeline.Failure
	switch {
	case errors.As(cause, &f):
		own := *f
		return &own
	case errors.Is(cause, context.DeadlineExceeded):
		return pipeline.Failuref(pipeline.CategoryTimeout, "the step ran out of time")
	}
	return pipeline.Failuref(pipeline.CategoryCancelled, "the step was cancelled")
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// duration reads a span of time as the language spells it.
func duration(param string, v any) (time.Duration, error) {
	if v == nil {
		return 0, nil
	}
	d, ok := spec.Duration(v)
	if !ok {
		return 0, invalid("parameter %s is %s; write a number of seconds, or 90s, 5m, 1h30m, 2d", param, pipeline.EncodeValue(v))
	}
	return d, nil
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(float64(n)/(1<<20), 'f', -1, 64) + " MiB"
	case n >= 1<<10:
		return strconv.FormatFloat(float64(n)/(1<<10), 'f', -1, 64) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// head shortens a text for a message.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // not in the middle of a character
		n--
	}
	return s[:n] + "…"
}
