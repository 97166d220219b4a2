package remote

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Rules are what a service wants of a conversation beyond what all of them want.
type Rules struct {
	Of    string                    // whose opaque parts it may read
	MaxID int                       // bytes of the id of a tool call
	Takes func(b *model.Block) bool // whether it takes the file that the block holds
	Form  *Form                     // has the names of tools
}

// plain is what all services take as the id of a call.
var plain = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// What is said where a strict service wants something and nothing was said.
const (
	goOn     = "Go on."
	noResult = "No result was recorded for this call."
	noOutput = "(no output)"
)

// Talk is a conversation in the order that every service takes, whoever it was
// held with:
//
//   - user and assistant take turns; the user begins and ends;
//   - no message and no text is empty;
//   - every call of a tool has an id of its own, arguments that are a JSON object,
//     and its result at the begin of the next message, in the order of the calls;
//   - reasoning and opaque parts of other services are left out.
//
// What was said before a call stays as it is when the conversation grows, so that
// services find it in their caches. The error is for a file that the service does
// not take in the last message; in earlier ones, and in results, it is named.
func (s Service) Talk(messages []model.Message, rules Rules) ([]model.Message, error) {
	turns, err := s.turns(messages, rules)
	if err != nil {
		return nil, err
	}
	t := talk{rules: rules, seen: map[string]bool{}}
	for i := 0; i < len(turns); i++ {
		if turns[i].Role == model.User {
			t.user(turns[i].Blocks, nil)
			continue
		}
		calls := t.assistant(turns[i].Blocks)
		if len(calls) == 0 {
			continue
		}
		var next []model.Block
		if i+1 < len(turns) { // merged: it is the user's
			i++
			next = turns[i].Blocks
		}
		t.user(next, calls)
	}
	if n := len(t.out); n == 0 || t.out[n-1].Role == model.Assistant {
		t.add(model.User, []model.Block{{Kind: model.BlockText, Text: goOn}})
	}
	return t.out, nil
}

// turns merges what one side says in a row, and leaves out what the service may
// not read.
func (s Service) turns(messages []model.Message, rules Rules) ([]model.Message, error) {
	var turns []model.Message
	for i, m := range messages {
		for _, b := range m.Blocks {
			b, err := s.block(b, m.Role, rules, m.Role == model.User && i == len(messages)-1)
			if err != nil {
				return nil, err
			}
			role := m.Role
			switch b.Kind {
			case "":
				continue
			case model.BlockToolResult:
				role = model.User
			case model.BlockToolUse:
				role = model.Assistant
			}
			if n := len(turns); n > 0 && turns[n-1].Role == role {
				turns[n-1].Blocks = append(turns[n-1].Blocks, b)
				continue
			}
			turns = append(turns, model.Message{Role: role, Blocks: []model.Block{b}})
		}
	}
	return turns, nil
}

// block is a block as the service may read it; without a kind, it is left out.
func (s Service) block(b model.Block, role model.Role, rules Rules, last bool) (model.Block, error) {
	if b.Of != rules.Of || role != model.Assistant {
		b.Opaque, b.Of = nil, ""
	}
	switch b.Kind {
	case model.BlockText:
		if strings.TrimSpace(b.Text) == "" && len(b.Opaque) == 0 {
			return model.Block{}, nil
		}
	case model.BlockReasoning:
		if len(b.Opaque) == 0 {
			return model.Block{}, nil
		}
	case model.BlockToolUse:
		if b.ToolUse == nil {
			return model.Block{}, nil
		}
	case model.BlockToolResult:
		if b.ToolResult == nil {
			return model.Block{}, nil
		}
		result := *b.ToolResult
		result.Content = nil
		for _, c := range b.ToolResult.Content {
			if c.ToolUse != nil || c.ToolResult != nil {
				continue
			}
			c, err := s.block(c, model.User, rules, false)
			if err != nil {
				return model.Block{}, err
			}
			if c.Kind != "" {
				result.Content = append(result.Content, c)
			}
		}
		b.ToolResult = &result
	case model.BlockImage, model.BlockAudio, model.BlockDocument:
		return s.file(b, rules, last)
	default:
		return model.Block{}, nil
	}
	return b, nil
}

// file is a file's block, its text where it is one, or a text that names it.
func (s Service) file(b model.Block, rules Rules, last bool) (model.Block, error) {
	m := b.Media
	switch {
	case m == nil:
		return model.Block{}, nil
	case len(m.Data) > 0 && b.Kind == model.BlockDocument && isText(m.Type):
		return model.Block{Kind: model.BlockText, Text: fmt.Sprintf("<document name=%q>\n%s\n</document>", m.Name, m.Data)}, nil
	case len(m.Data) == 0 && m.URL == "":
		return b, s.Invalid("the file %s was not loaded before the call", nameOf(m))
	case rules.Takes(&b):
		return b, nil
	case last:
		return b, s.Invalid("it does not take the file %s of type %s", nameOf(m), m.Type)
	}
	return model.Block{Kind: model.BlockText, Text: fmt.Sprintf("[the file %s of type %s, which you cannot read]", nameOf(m), m.Type)}, nil
}

func isText(mediaType string) bool {
	base, _, _ := strings.Cut(mediaType, ";")
	switch base {
	case "application/json", "application/yaml", "application/xml":
		return true
	}
	return strings.HasPrefix(base, "text/")
}

func nameOf(m *model.Media) string {
	switch {
	case m.Name != "":
		return m.Name
	case m.URL != "":
		return m.URL
	case m.Blob != "":
		return string(m.Blob)
	}
	return "without a name"
}

// FileName is the name of a file for services that want one.
func FileName(m *model.Media) string {
	if m.Name != "" {
		return m.Name
	}
	return "file"
}

// DataURL is a file's bytes as a URL.
func DataURL(m *model.Media) string {
	return "data:" + m.Type + ";base64," + base64.StdEncoding.EncodeToString(m.Data)
}

// talk grows into a conversation that all services take.
type talk struct {
	rules Rules
	out   []model.Message
	seen  map[string]bool // ids of calls
	calls int
}

// call is a call of a tool: the id that it had, and the one that it got.
type call struct{ had, id, name string }

func (t *talk) add(role model.Role, blocks []model.Block) {
	if len(t.out) == 0 && role == model.Assistant {
		t.out = append(t.out, model.UserText(goOn))
	}
	if n := len(t.out); n > 0 && t.out[n-1].Role == role {
		t.out[n-1].Blocks = append(t.out[n-1].Blocks, blocks...)
		return
	}
	t.out = append(t.out, model.Message{Role: role, Blocks: blocks})
}

// assistant adds what the model said, and gives its calls. Reasoning with nothing
// after it was cut off, and is left out.
func (t *talk) assistant(blocks []model.Block) []call {
	for len(blocks) > 0 && blocks[len(blocks)-1].Kind == model.BlockReasoning {
		blocks = blocks[:len(blocks)-1]
	}
	if len(blocks) == 0 {
		return nil
	}
	own := make([]model.Block, 0, len(blocks))
	var calls []call
	for _, b := range blocks {
		if b.ToolUse != nil {
			use := *b.ToolUse
			c := call{had: use.ID, id: t.id(use.ID), name: t.rules.Form.name(use.Name)}
			use.ID, use.Name, use.Arguments = c.id, c.name, arguments(use.Arguments)
			b.ToolUse = &use
			calls = append(calls, c)
		}
		own = append(own, b)
	}
	t.add(model.Assistant, own)
	return calls
}

// id is a call's id, or another one where the service does not take it, or where
// another call had it.
func (t *talk) id(had string) string {
	t.calls++
	id := had
	for n := t.calls; id == "" || t.seen[id] || len(id) > t.rules.MaxID || !plain.MatchString(id); n++ {
		id = fmt.Sprintf("call%d", n)
	}
	t.seen[id] = true
	return id
}

// user adds what the user says, after the results of the calls before it.
func (t *talk) user(blocks []model.Block, calls []call) {
	taken := make([]bool, len(blocks))
	var own []model.Block
	for _, c := range calls {
		result := model.ToolResult{Content: []model.Block{{Kind: model.BlockText, Text: noResult}}, Failed: true}
		for i, b := range blocks {
			if b.ToolResult != nil && !taken[i] && b.ToolResult.ID == c.had {
				taken[i] = true
				result = *b.ToolResult
				break
			}
		}
		result.ID, result.Name = c.id, c.name
		if len(result.Content) == 0 {
			result.Content = []model.Block{{Kind: model.BlockText, Text: noOutput}}
		}
		own = append(own, model.Block{Kind: model.BlockToolResult, ToolResult: &result})
	}
	for i, b := range blocks {
		switch {
		case taken[i]:
		case b.ToolResult != nil: // nobody asked for it; it was still said
			own = append(own, model.Block{Kind: model.BlockText, Text: "Result of the tool " + b.ToolResult.Name + ":"})
			own = append(own, b.ToolResult.Content...)
		default:
			own = append(own, b)
		}
	}
	if len(own) > 0 {
		t.add(model.User, own)
	}
}

// arguments are a call's arguments as every service takes them: a JSON object.
// What is none was answered as such, and stays to be read.
func arguments(text string) string {
	if strings.TrimSpace(text) == "" {
		return "{}"
	}
	if v, err := pipeline.DecodeValue([]byte(text)); err == nil {
		if _, ok := v.(map[string]any); ok {
			return text
		}
	}
	return string(pipeline.EncodeValue(map[string]any{"malformed_arguments": text}))
}
