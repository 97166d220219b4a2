package web

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// promptShown is how many messages of a prompt a page shows: the first, and the
// newest.
const promptShown = 100

// promptData is one call.
type promptData struct {
	Run      string
	Entry    talkEntry
	System   string
	Messages []promptWords
	Between  int // messages that are not shown, behind the first one
	Tools    []promptTool
	Schema   string
	Answer   promptWords
	Now      time.Time
}

// promptWords is a message, or an answer.
type promptWords struct {
	Title string
	Parts []promptText
}

// promptText is a text of a message. Name says what it is, unless it is simply
// said.
type promptText struct{ Name, Text string }

// promptTool is a tool that the model was shown.
type promptTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`
}

// promptMessageOf is a message as the API gives it.
type promptMessageOf struct {
	Role   string      `json:"role"`
	Blocks []talkBlock `json:"blocks"`
}

// promptOf is what the page of a call shows.
func promptOf(run string, c *api.Call) (promptData, error) {
	d := promptData{Run: run, Entry: entryOf(c), Now: time.Now()}
	var prompt struct {
		System   string            `json:"system"`
		Messages []promptMessageOf `json:"messages"`
		Tools    []promptTool      `json:"tools"`
		Schema   json.RawMessage   `json:"schema"`
	}
	if c.GetPrompt() != "" {
		if err := json.Unmarshal([]byte(c.GetPrompt()), &prompt); err != nil {
			return d, err
		}
	}
	d.System, d.Tools, d.Schema = prompt.System, prompt.Tools, string(prompt.Schema)
	if over := len(prompt.Messages) - promptShown; over > 0 {
		d.Between = over
		prompt.Messages = append(prompt.Messages[:1:1], prompt.Messages[1+over:]...)
	}
	for i := range prompt.Messages {
		d.Messages = append(d.Messages, wordsOf(&prompt.Messages[i]))
	}
	d.Answer = promptWords{Title: "Answer"}
	switch {
	case c.GetKind() == "tool":
		d.Answer.Title = "Result"
		for _, text := range d.Entry.Result {
			d.Answer.Parts = append(d.Answer.Parts, promptText{Text: text})
		}
	case c.GetResponse() != "":
		var answer struct {
			Message promptMessageOf `json:"message"`
		}
		if err := json.Unmarshal([]byte(c.GetResponse()), &answer); err != nil {
			return d, err
		}
		d.Answer.Parts = wordsOf(&answer.Message).Parts
		if len(d.Answer.Parts) == 0 && d.Entry.Value != "" && d.Entry.Value != "null" {
			d.Answer.Parts = []promptText{{Text: d.Entry.Value}}
		}
	}
	return d, nil
}

// wordsOf puts the blocks of a message into texts.
func wordsOf(m *promptMessageOf) promptWords {
	w := promptWords{Title: roleWord(m.Role)}
	if len(m.Blocks) > 0 && m.Blocks[0].ToolResult != nil {
		w.Title = "Tools"
	}
	for _, b := range m.Blocks {
		switch {
		case b.ToolUse != nil:
			w.Parts = append(w.Parts, promptText{"calls " + b.ToolUse.Name, b.ToolUse.Arguments})
		case b.ToolResult != nil:
			var texts []string
			for _, part := range wordsOf(&promptMessageOf{Blocks: b.ToolResult.Content}).Parts {
				texts = append(texts, part.Text)
			}
			w.Parts = append(w.Parts, promptText{"result of " + b.ToolResult.Name, strings.Join(texts, "\n")})
		case b.Kind == "reasoning":
			w.Parts = append(w.Parts, promptText{"reasoning", b.Text})
		case b.Text == "":
			w.Parts = append(w.Parts, promptText{human.Phrase(b.Kind), "not shown here"})
		default:
			w.Parts = append(w.Parts, promptText{"", b.Text})
		}
	}
	return w
}

// roleWord names who has said something.
func roleWord(role string) string {
	switch role {
	case "user":
		return "User"
	case "assistant":
		return "Model"
	}
	return human.Phrase(role)
}
