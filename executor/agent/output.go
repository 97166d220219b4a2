package agent

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The ways to ask for a structured answer.
const (
	modeTool   = "tool"   // the answer is handed in by a call
	modePrompt = "prompt" // the instructions tell the schema
	answerTool = "final_answer"
)

// output is what an agent's answer must be. Schema nil: a text.
type output struct {
	schema  map[string]any
	mode    string // native or empty: the request tells the schema
	retries int
	wrapped bool // the answer is the member value of what is handed in
	known   *model.Schema
}

// outputOf reads what the agent promises, else what its step does.
func outputOf(o *pipeline.AgentOutput, schema map[string]any) output {
	out := output{schema: schema, retries: 1}
	if o != nil {
		out.schema, out.mode = o.Schema, o.Mode
		if o.Retries > 0 {
			out.retries = o.Retries
		}
	}
	if out.schema == nil {
		out.mode = ""
	}
	out.wrapped = out.schema["type"] != "object"
	return out
}

// told is how instructions tell of the schema.
func (o *output) told() string {
	return "Give your final answer as nothing but JSON that satisfies this schema:\n" + string(pipeline.EncodeValue(any(o.schema)))
}

// handIn is the schema of what the answer's call takes.
func (o *output) handIn() map[string]any {
	if !o.wrapped {
		return o.schema
	}
	return map[string]any{"type": "object", "properties": map[string]any{"value": any(o.schema)}, "required": []any{"value"}, "additionalProperties": false}
}

// ask puts into a request how the answer is to be given.
func (o *output) ask(r *model.Request, final bool) {
	switch {
	case o.schema == nil:
	case o.mode == modeTool:
		r.Tools = append(r.Tools, model.ToolDef{
			Name: answerTool, Description: "Hands in your final answer. Call it once, alone, when all other work is done.", Schema: o.handIn(),
		})
		if final {
			r.Choice = answerTool
		}
	case o.mode == modePrompt:
	default:
		r.Schema, r.Mode = o.schema, o.mode
	}
}

// isAnswer reports whether the calls of a turn hand in the answer.
func (o *output) isAnswer(uses []*model.ToolUse) bool {
	return o.mode == modeTool && len(uses) == 1 && uses[0].Name == answerTool
}

func (o *output) compile() error {
	if o.known != nil {
		return nil
	}
	var err error
	o.known, err = model.Compile(o.schema)
	return err
}

// read finds the answer in what the model said, and lists what is wrong with it.
func (o *output) read(r *model.Response) (v any, wrong []string, err error) {
	if o.schema == nil {
		return r.Text(), nil, nil
	}
	if err := o.compile(); err != nil {
		return nil, nil, err
	}
	if v = r.Value; v == nil {
		if v, err = o.known.Decode(r.Text()); err != nil {
			return nil, []string{err.Error()}, nil //nolint:nilerr // the model is told
		}
	}
	return v, o.known.Violations(v), nil
}

// complaint tells the model what is wrong with its answer.
func (o *output) complaint(wrong []string) string {
	return "The answer does not have the form that was asked for:\n- " + strings.Join(wrong, "\n- ") +
		"\nAnswer again, with nothing but JSON that satisfies this schema:\n" + string(pipeline.EncodeValue(any(o.schema)))
}

// handedIn takes an answer that was handed in by a call.
func (l *loop) handedIn(u *model.ToolUse, last bool) (v any, done bool, err error) {
	args, wrong := check(&tool.Tool{Name: answerTool, Schema: l.output.handIn()}, u.Arguments)
	said, failed := "Taken.", len(wrong) > 0
	if failed {
		said = "The answer is not taken: it does not have the form that was asked for:\n- " + strings.Join(wrong, "\n- ")
	}
	l.messages = append(l.messages, results([]model.Block{resultBlock(u, []model.Block{{Kind: model.BlockText, Text: said}}, failed)}))
	if failed {
		if l.again >= l.output.retries || last {
			return nil, false, l.askAgain(model.ReasonSchema, l.output.complaint(wrong), true)
		}
		l.again++
		l.repair = true
		return nil, false, nil
	}
	if l.output.wrapped {
		return args["value"], true, nil
	}
	return args, true, nil
}
