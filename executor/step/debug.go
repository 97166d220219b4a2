package step

import (
	"context"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const debugDoc = `Writes a message and a value to the step's log and gives the value back, or the message where there is no value.

It can also take its time and fail on purpose, which makes it the step for trying out retries, time limits and failure handling:

    - id: flaky
      action: debug
      parameters: {message: here we go, delay: 200ms, fail_attempts: 2, category: system}
      retry: {max_attempts: 3, initial: 100ms}

It counts as pure: a crash may repeat it. Give the step an effect of its own to try out something else.`

// Debug logs, waits and fails as told.
type Debug struct {
	Message      string `doc:"a text for the log"`
	Value        any    `doc:"any value; it is logged as JSON and becomes the output"`
	Delay        any    `type:"duration" doc:"how long to wait first, as in 200ms"`
	Fail         any    `doc:"true, or the message to fail with; the output is given nevertheless"`
	FailAttempts int64  `doc:"fail the first attempts, up to this number"`
	Category     string `default:"\"failed\"" enum:"failed,rate_limit,timeout,resource_exhaustion,validation,system,model,tool,contract,cancelled,unknown" doc:"the category of the failure"`
}

func debugAction() executor.Action {
	return executor.NewAction[Debug](executor.Describe{Name: "debug", Doc: debugDoc, Effect: pipeline.EffectPure})
}

// Instant reports whether it has nothing to say and no time to take.
func (d Debug) Instant() bool { return d.Delay == nil && d.Message == "" && d.Value == nil }

// Run logs first, then waits, then fails or gives its value.
func (d Debug) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	delay, err := duration("delay", d.Delay)
	if err != nil {
		return executor.Output{}, err
	}
	out := executor.Output{Value: d.Value}
	if d.Message != "" {
		env.Log("stdout", d.Message+"\n")
	}
	if d.Value != nil {
		env.Log("stdout", head(string(pipeline.EncodeValue(d.Value)), 64<<10)+"\n")
	} else if d.Message != "" {
		out.Value = d.Message
	}
	if err := pause(ctx, delay); err != nil {
		return executor.Output{}, err
	}
	fail := d.Fail != nil && d.Fail != false
	if !fail && int64(env.Attempt) > d.FailAttempts {
		return out, nil
	}
	text := "the step was told to fail"
	switch {
	case !fail:
		text = "the step was told to fail its first attempts"
	case d.Fail != true:
		text = expr.Text(d.Fail)
	}
	return out, pipeline.Failuref(d.Category, "%s", text)
}
