// Package cassette answers a model's requests with what models have answered
// before: a file of recordings, made from the log of any run. The run is real but
// for its models, which are neither reached nor paid.
//
//	# report.cassette.yaml
//	recordings:
//	  - key: 5d41402abc4b2a76    # of the request: system, messages, tools, schema, choice
//	    step: write
//	    model: fable-5
//	    request:
//	      messages:
//	        - user: Write a line about spiders.
//	    answer:
//	      stop: end
//	      message: {assistant: They have eight legs.}
//	      usage: {input_tokens: 12, output_tokens: 7}
//
// A request is known by its content, not by the model that it was made to. One
// that was recorded several times is answered by its recordings in their order,
// for each run by itself, and by the last one from then on. A request that was not
// recorded fails, and says how the nearest recording differs.
package cassette

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// keyLength is how many hexadecimal digits of a request's digest name it.
const keyLength = 16

// Recording is one call of a model.
type Recording struct {
	Key     string // of Request, by KeyOf
	Step    pipeline.Path
	Agent   string
	Turn    int
	Param   string
	Phase   string
	Model   string
	Request *model.Request
	Answer  *model.Response
}

// KeyOf names a request by what is asked.
func KeyOf(r *model.Request) string { return digest(canonical(r)) }

// canonical is what is asked, as a JSON value.
func canonical(r *model.Request) map[string]any {
	m := map[string]any{}
	if r.System != "" {
		m["system"] = r.System
	}
	if r.Choice != "" && r.Choice != "auto" {
		m["choice"] = r.Choice
	}
	if r.Schema != nil {
		m["schema"] = r.Schema
	}
	if len(r.Tools) > 0 {
		tools := make([]any, len(r.Tools))
		for i, t := range r.Tools {
			tool := map[string]any{"name": t.Name, "description": t.Description}
			if t.Schema != nil {
				tool["schema"] = t.Schema
			}
			tools[i] = tool
		}
		m["tools"] = tools
	}
	m["messages"] = messages(r.Messages)
	return m
}

func messages(list []model.Message) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = message(&list[i])
	}
	return out
}

// message is {role: text} where that says it all, else {role: [blocks]}.
func message(m *model.Message) map[string]any {
	if len(m.Blocks) == 1 {
		if b := m.Blocks[0]; b.Kind == model.BlockText && len(b.Opaque) == 0 && b.Of == "" {
			return map[string]any{string(m.Role): b.Text}
		}
	}
	return map[string]any{string(m.Role): plain(kept(m.Blocks))}
}

// kept are blocks without the bytes of files that are kept with the run: those are
// known by their digests, in the log as on their way to a model.
func kept(blocks []model.Block) []model.Block {
	list := slices.Clone(blocks)
	for i := range list {
		if m := list[i].Media; m != nil && m.Blob != "" && len(m.Data) > 0 {
			file := *m
			file.Data = nil
			list[i].Media = &file
		}
		if t := list[i].ToolResult; t != nil {
			result := *t
			result.Content = kept(t.Content)
			list[i].ToolResult = &result
		}
	}
	return list
}

// plain is a struct as a JSON value.
func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	value, err := pipeline.DecodeValue(b)
	if err != nil {
		return nil
	}
	return value
}

// Provider answers from one file. It is safe for concurrent use.
type Provider struct {
	file   string
	redact func(string) string // nil: nothing is secret

	mu   sync.Mutex
	list []Recording
	at   map[string][]int // by key
}

var _ model.Keeper = (*Provider)(nil)

// Call answers with a recording.
func (p *Provider) Call(ctx context.Context, r *model.Request) (model.Stream, error) {
	key := p.keyOf(r)
	p.mu.Lock()
	found := p.at[key]
	p.mu.Unlock()
	if len(found) == 0 {
		f := pipeline.Failuref(pipeline.CategoryModel, "%s", p.miss(r))
		f.Reason = model.ReasonMissed
		return nil, f
	}
	n := 0
	for ; n < len(found)-1; n++ {
		free, err := r.Uses.Take(ctx, ruleOf(key, n), 1)
		if err != nil {
			return nil, fmt.Errorf("count the uses of recording %s: %w", key, err)
		}
		if free {
			break
		}
	}
	p.mu.Lock()
	a := *p.list[found[n]].Answer
	p.mu.Unlock()
	a.Rule = ruleOf(key, n)
	return model.Whole(&a), nil
}

// ruleOf names a recording in journals.
func ruleOf(key string, n int) string { return fmt.Sprintf("cassette:%s#%d", key, n) }

// The file.
type (
	file struct {
		Recordings []entry `yaml:"recordings"`
	}
	entry struct {
		Key     string         `yaml:"key"`
		Step    string         `yaml:"step,omitempty"`
		Agent   string         `yaml:"agent,omitempty"`
		Turn    int            `yaml:"turn,omitempty"`
		Param   string         `yaml:"param,omitempty"`
		Phase   string         `yaml:"phase,omitempty"`
		Model   string         `yaml:"model,omitempty"`
		Request map[string]any `yaml:"request"`
		Answer  map[string]any `yaml:"answer"`
	}
)

const head = "# Recorded answers of models. A request that continues an earlier one says only\n# what was added after that one's answer.\n"

// Write renders recordings as a file. redact blots secrets out of every text; it
// may be nil.
func Write(list []Recording, redact func(string) string) ([]byte, error) {
	if redact == nil {
		redact = func(s string) string { return s }
	}
	var f file
	type said struct {
		whole    []any // messages with the answer
		canon    map[string]any
		position int
	}
	var before []said
	for i := range list {
		r := &list[i]
		canon, _ := clean(canonical(r.Request), redact).(map[string]any)
		answer, _ := clean(answerValue(r.Answer), redact).(map[string]any)
		e := entry{
			Step: string(r.Step), Agent: r.Agent, Turn: r.Turn, Param: r.Param, Phase: r.Phase, Model: r.Model, Answer: answer,
			Request: map[string]any{}, Key: digest(canon),
		}
		list, _ := canon["messages"].([]any)
		maps.Copy(e.Request, canon)
		for k := len(before) - 1; k >= 0; k-- {
			b := &before[k]
			if len(b.whole) <= len(list) && same(b.whole, list[:len(b.whole)]) && within(b.canon, canon) {
				e.Request["continues"], e.Request["messages"] = int64(b.position), list[len(b.whole):]
				for name, v := range b.canon {
					if name != "messages" && same(v, canon[name]) {
						delete(e.Request, name)
					}
				}
				break
			}
		}
		f.Recordings = append(f.Recordings, e)
		before = append(before, said{whole: append(slices.Clip(list), answer["message"]), canon: canon, position: i + 1})
	}
	var out bytes.Buffer
	out.WriteString(head)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("write a cassette: %w", err)
	}
	return out.Bytes(), enc.Close()
}

func digest(canon map[string]any) string {
	h := sha256.Sum256(pipeline.EncodeValue(canon))
	return hex.EncodeToString(h[:])[:keyLength]
}

// within reports whether b has all the members that a has.
func within(a, b map[string]any) bool {
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}

func same(a, b any) bool { return bytes.Equal(pipeline.EncodeValue(a), pipeline.EncodeValue(b)) }

// clean is a copy of a value with its texts redacted.
func clean(v any, redact func(string) string) any {
	switch v := v.(type) {
	case string:
		return redact(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = clean(v[i], redact)
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = clean(e, redact)
		}
		return m
	}
	return v
}

func answerValue(a *model.Response) map[string]any {
	m := map[string]any{"message": message(&a.Message)}
	if a.Stop != "" {
		m["stop"] = a.Stop
	}
	if a.Value != nil && string(pipeline.EncodeValue(a.Value)) != a.Text() {
		m["value"] = a.Value
	}
	if a.Usage != nil {
		u := *a.Usage // as it was first recorded, also of a run that was itself replayed
		u.ReplayedTokens, u.ReplayedUSD, u.ReplayedCalls = 0, 0, 0
		m["usage"] = plain(&u)
	}
	return m
}

// Parse reads a cassette. name is the file's in messages.
func Parse(name string, source []byte) (*Provider, error) {
	bad := func(format string, args ...any) error {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: "invalid_cassette", Text: name + ": " + fmt.Sprintf(format, args...)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(source))
	dec.KnownFields(true)
	var f file
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, bad("%v", err)
	}
	p := &Provider{file: name, at: map[string][]int{}}
	for i := range f.Recordings {
		e := &f.Recordings[i]
		r := Recording{
			Key: e.Key, Step: pipeline.Path(e.Step), Agent: e.Agent, Turn: e.Turn, Param: e.Param, Phase: e.Phase, Model: e.Model,
		}
		var err error
		if r.Request, err = p.request(e.Request); err != nil {
			return nil, bad("recording %d: %v", i+1, err)
		}
		if r.Answer, err = answer(e.Answer); err != nil {
			return nil, bad("recording %d: %v", i+1, err)
		}
		if r.Answer.Model = e.Model; e.Model == "" {
			r.Answer.Model = "cassette"
		}
		r.Key = KeyOf(r.Request) // an edited request is known by what it says now
		p.at[r.Key] = append(p.at[r.Key], i)
		p.list = append(p.list, r)
	}
	return p, nil
}

// request reads a request, after those before it.
func (p *Provider) request(m map[string]any) (*model.Request, error) {
	for k := range m {
		if !strings.Contains(" system choice schema tools messages continues ", " "+k+" ") {
			return nil, fmt.Errorf("a request has no key %q", k)
		}
	}
	r := &model.Request{}
	if base, ok := number(m["continues"]); ok {
		if base < 1 || base > int64(len(p.list)) {
			return nil, fmt.Errorf("it continues recording %d, which does not stand before it", base)
		}
		b := &p.list[base-1]
		r.System, r.Choice, r.Schema, r.Tools = b.Request.System, b.Request.Choice, b.Request.Schema, b.Request.Tools
		r.Messages = append(append(r.Messages, b.Request.Messages...), b.Answer.Message)
	}
	if v, ok := m["system"].(string); ok {
		r.System = v
	}
	if v, ok := m["choice"].(string); ok {
		r.Choice = v
	}
	if v, ok := value(m["schema"]).(map[string]any); ok {
		r.Schema = v
	}
	if list, ok := value(m["tools"]).([]any); ok {
		r.Tools = nil
		for _, v := range list {
			t, _ := v.(map[string]any)
			d := model.ToolDef{}
			d.Name, _ = t["name"].(string)
			d.Description, _ = t["description"].(string)
			d.Schema, _ = t["schema"].(map[string]any)
			r.Tools = append(r.Tools, d)
		}
	}
	list, _ := value(m["messages"]).([]any)
	for _, v := range list {
		t, err := messageOf(v)
		if err != nil {
			return nil, err
		}
		r.Messages = append(r.Messages, t)
	}
	return r, nil
}

func number(v any) (int64, bool) {
	switch v := value(v).(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), true
	}
	return 0, false
}

// value is what YAML gave, as a JSON value.
func value(v any) any {
	if v == nil {
		return nil
	}
	return plain(v)
}

func messageOf(v any) (model.Message, error) {
	m, _ := v.(map[string]any)
	for _, role := range []model.Role{model.User, model.Assistant} {
		said, ok := m[string(role)]
		if !ok || len(m) != 1 {
			continue
		}
		if text, ok := said.(string); ok {
			return model.Message{Role: role, Blocks: []model.Block{{Kind: model.BlockText, Text: text}}}, nil
		}
		var blocks []model.Block
		if err := json.Unmarshal(pipeline.EncodeValue(said), &blocks); err != nil {
			return model.Message{}, fmt.Errorf("a message of the %s: %w", role, err)
		}
		return model.Message{Role: role, Blocks: blocks}, nil
	}
	return model.Message{}, errors.New("a message is {user: ...} or {assistant: ...}: a text, or blocks")
}

func answer(m map[string]any) (*model.Response, error) {
	a := &model.Response{Value: value(m["value"])}
	a.Stop, _ = m["stop"].(string)
	var err error
	if a.Message, err = messageOf(value(m["message"])); err != nil {
		return nil, err
	}
	if u := value(m["usage"]); u != nil {
		a.Usage = &pipeline.Usage{}
		if err := json.Unmarshal(pipeline.EncodeValue(u), a.Usage); err != nil {
			return nil, fmt.Errorf("its usage: %w", err)
		}
	}
	return a, nil
}
