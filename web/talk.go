package web

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of what is shown of a step's calls.
const (
	talkRead  = 500      // calls that are read
	talkShown = 40       // of these, in the drawer
	talkText  = 16 << 10 // bytes of a text
	talkLong  = 600      // bytes from which on it is folded
	talkShort = 72       // bytes of JSON that stay on one line
	liveText  = 8 << 10  // bytes of an answer on its way
)

// talk is the calls that a step has made: an agent's conversation.
type talk struct {
	Run     string
	Step    string
	Entries []talkEntry
	Earlier int  // calls that are not shown
	More    bool // nor are those after the last one
	Turns   int
	Tools   int
	Input   int64
	Output  int64
	USD     float64
	Unknown int64 // calls whose cost nobody knows
	Script  bool  // a script gave answers
	Whole   bool  // the page of the conversation
	Live    []livePiece
	Steer   bool   // its agent can be told something
	Back    string // where that leads
	Now     time.Time
}

// talkEntry is a call as it is shown.
type talkEntry struct {
	*api.Call
	Text      []string
	Reasoning []string
	Result    []string // of a tool
	Value     string   // JSON
	Chosen    string   // why this model
	Passed    []string // models that were passed over, and why
	Bytes     int64    // of all parts
	Depth     int      // within how many calls of other agents it was made
}

// livePiece is what has come of a call that is not recorded yet.
type livePiece struct {
	Call  int32
	Agent string
	Kind  string
	Name  string
	Text  string
	Cut   bool // its beginning is missing
}

// talks reports whether a step may have made calls.
func talks(s *api.Step) bool {
	u := s.GetUsage()
	return s.GetAction() == "agent" || s.GetModel() != "" || u.GetInputTokens()+u.GetOutputTokens() > 0 || strings.HasPrefix(s.GetAction(), "mcp__")
}

// talkData reads what a step has called.
func (s *site) talkData(ctx context.Context, sc screen, step *api.Step) (*talk, error) {
	t := &talk{Run: sc.Run, Step: step.GetPath(), Back: sc.with(), Now: time.Now()}
	list, err := s.calls.ListCalls(ctx, &api.ListCallsRequest{Id: sc.Run, Step: step.GetPath(), PageSize: talkRead}, bigAnswers)
	if err != nil {
		return nil, err
	}
	t.More = list.GetNextPageToken() != ""
	for _, c := range list.GetCalls() {
		t.Entries = append(t.Entries, entryOf(c))
		t.Input += int64(c.GetUsage().GetInputTokens())
		t.Output += int64(c.GetUsage().GetOutputTokens())
		t.USD += c.GetUsage().GetCostUsd()
		t.Unknown += int64(c.GetUsage().GetUnpricedCalls())
		t.Script = t.Script || c.GetScripted()
		if c.GetKind() == "model" {
			t.Turns++
		} else {
			t.Tools++
		}
	}
	t.Entries = nested(t.Entries)
	running := step.GetStatus() == api.Step_RUNNING || step.GetStatus() == api.Step_WAITING
	t.Steer = running && step.GetAction() == "agent"
	return t, nil
}

// nested puts what an agent has done behind the call that asked it to.
func nested(list []talkEntry) []talkEntry {
	within := map[int32][]talkEntry{}
	known := map[int32]bool{}
	for _, e := range list {
		known[e.GetN()] = true
	}
	for _, e := range list {
		in := e.GetParent()
		if !known[in] {
			in = 0
		}
		within[in] = append(within[in], e)
	}
	out := make([]talkEntry, 0, len(list))
	var add func(in int32, depth int)
	add = func(in int32, depth int) {
		for _, e := range within[in] {
			e.Depth = depth
			out = append(out, e)
			add(e.GetN(), depth+1)
		}
	}
	add(0, 0)
	return out
}

// newest is the end of a conversation.
func (t *talk) newest(n int) *talk {
	if over := len(t.Entries) - n; over > 0 {
		t.Earlier, t.Entries = over, t.Entries[over:]
	}
	return t
}

// talkBlock is a part of a message.
type talkBlock struct {
	Kind    string `json:"kind"`
	Text    string `json:"text"`
	ToolUse *struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"tool_use"`
	ToolResult *struct {
		Name    string      `json:"name"`
		Content []talkBlock `json:"content"`
	} `json:"tool_result"`
}

func entryOf(c *api.Call) talkEntry {
	e := talkEntry{Call: c}
	for _, p := range c.GetParts() {
		e.Bytes += int64(p.GetBytes())
	}
	if c.GetKind() == "tool" {
		var result struct {
			Content []talkBlock `json:"content"`
		}
		if json.Unmarshal([]byte(c.GetResponse()), &result) == nil {
			for _, b := range result.Content {
				if b.Text == "" {
					b.Text = "(" + human.Phrase(b.Kind) + ")" // a picture, say
				}
				e.Result = append(e.Result, b.Text)
			}
		}
		return e
	}
	var answer struct {
		Message struct {
			Blocks []talkBlock `json:"blocks"`
		} `json:"message"`
		Value json.RawMessage `json:"value"`
	}
	if json.Unmarshal([]byte(c.GetResponse()), &answer) == nil {
		for _, b := range answer.Message.Blocks {
			switch {
			case b.Text == "":
			case b.Kind == "reasoning":
				e.Reasoning = append(e.Reasoning, b.Text)
			default:
				e.Text = append(e.Text, b.Text)
			}
		}
		e.Value = string(answer.Value)
	}
	var choice struct {
		By, Reason, Policy string
		Passed             []struct{ Model, Reason string }
	}
	if json.Unmarshal([]byte(c.GetChoice()), &choice) == nil {
		e.Chosen = chosenWords(choice.By, choice.Policy, choice.Reason)
		for _, p := range choice.Passed {
			e.Passed = append(e.Passed, p.Model+": "+p.Reason)
		}
	}
	return e
}

// chosenWords says why a model was asked.
func chosenWords(by, policy, reason string) string {
	text := ""
	switch by {
	case "":
		return reason
	case "policy":
		text = "chosen by " + policy
	case "fallback":
		text = "asked instead of another model"
	case "name":
		text = "named by the pipeline"
	default:
		text = "by " + human.Phrase(by)
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// state of a call as its badge shows it.
func (e talkEntry) state() state {
	switch {
	case e.GetState() == "asked" && e.GetDecision() == "":
		return "waiting"
	case e.GetState() != "finished":
		return "running"
	case e.GetFailed() || e.GetError() != nil:
		return "failed"
	}
	return "completed"
}

// title says what the call is.
func (e talkEntry) title() string {
	switch {
	case e.GetKind() == "tool":
		return e.GetName()
	case e.GetParam() != "":
		return "Fills in " + e.GetParam()
	case e.GetAgent() != "" && (e.GetPhase() == "turn" || e.GetPhase() == ""):
		return "Turn " + itoa(e.GetTurn()+1)
	}
	return strings.ToUpper(e.GetPhase()[:min(1, len(e.GetPhase()))]) + human.Phrase(e.GetPhase()[min(1, len(e.GetPhase())):])
}

// arguments are what a tool was called with, as JSON; of a call that was no
// JSON, as the model has written it.
func (e talkEntry) arguments() string {
	if e.GetKind() != "tool" || e.GetRequest() == "null" {
		return ""
	}
	var written string
	if json.Unmarshal([]byte(e.GetRequest()), &written) == nil {
		return written
	}
	return e.GetRequest()
}

// sizes are the parts of a prompt in words.
func (e talkEntry) sizes() string {
	list := make([]string, len(e.GetParts()))
	for i, p := range e.GetParts() {
		list[i] = human.Phrase(p.GetName()) + " " + bytesOf(int64(p.GetBytes()))
	}
	return strings.Join(list, ", ")
}

// spread puts JSON on several lines, unless it is short; the second result says
// how much of a long text is cut off.
func spread(text string) (shown string, over int) {
	if len(text) <= talkShort && !strings.Contains(text, "\n") {
		return text, 0
	}
	return pretty(text, talkText)
}

// isJSON reports whether a text is an object or a list.
func isJSON(text string) bool {
	text = strings.TrimSpace(text)
	return (strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")) && json.Valid([]byte(text))
}

// long reports whether a text is folded.
func long(text string) bool { return len(text) > talkLong }

// partBar is a part of a prompt as a piece of a bar of the width 100.
type partBar struct {
	Name  string
	Bytes int32
	X, W  string
	Class string
}

// bars divides a bar among the parts of a prompt.
func (e talkEntry) bars() []partBar {
	var list []partBar
	x := 0.0
	for i, p := range e.GetParts() {
		w := 100 * float64(p.GetBytes()) / float64(max(e.Bytes, 1))
		list = append(list, partBar{p.GetName(), p.GetBytes(), num(x), num(w), "part-" + strconv.Itoa(i%6+1)})
		x += w
	}
	return list
}

// talkPage is a whole conversation.
func (s *site) talkPage(w http.ResponseWriter, r *http.Request) {
	sc := screen{Run: chi.URLParam(r, "id"), Step: r.URL.Query().Get("step")}
	step := &api.Step{Path: sc.Step}
	if sc.Step == "" {
		s.notFound(w, r)
		return
	}
	t, err := s.talkData(r.Context(), sc, step)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	t.Whole = true
	s.show(w, r, http.StatusOK, page{"Calls of " + clip(sc.Step, 60), "runs", talkWhole(t)})
}

// callPage is one call with the prompt as it was sent.
func (s *site) callPage(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 32)
	if err != nil {
		s.notFound(w, r)
		return
	}
	run := chi.URLParam(r, "id")
	c, err := s.calls.GetCall(r.Context(), &api.GetCallRequest{Id: run, Step: r.URL.Query().Get("step"), N: int32(n)}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d, err := promptOf(run, c)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"Call " + itoa(c.GetN()), "runs", promptPage(d)})
}

// steerRun says something to a running agent.
func (s *site) steerRun(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	req := &api.SteerRunRequest{Id: id, Step: r.FormValue("step"), Text: strings.ReplaceAll(r.FormValue("text"), "\r\n", "\n")}
	if _, err := s.runs.SteerRun(r.Context(), req, bigAnswers); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, backTo(r.FormValue("back"), pathOfRun(id)), http.StatusSeeOther) //nolint:gosec // the run's own page
}

func pathOfCall(run string, c *api.Call) string {
	return link(pathOfRun(run)+"/call", "step", c.GetStep(), "n", itoa(c.GetN()))
}

// ongoing is what the calls of one step give while a page looks on.
type ongoing struct {
	mu    sync.Mutex
	list  []livePiece
	news  bool
	there bool // an event of the step has come: what begins from now on is heard from its beginning
}

// hear takes a message that is only live, and reports whether a call begins with it.
func (p *ongoing) hear(e *api.Event) (begins bool) {
	var d struct {
		Call                    int32
		Agent, Kind, Name, Text string
	}
	if json.Unmarshal([]byte(e.GetData()), &d) != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = true
	if d.Kind == "reset" { // the answer begins anew
		p.there = true
		p.list = slices.DeleteFunc(p.list, func(l livePiece) bool { return l.Call == d.Call })
		return false
	}
	begins = !slices.ContainsFunc(p.list, func(l livePiece) bool { return l.Call == d.Call })
	i := slices.IndexFunc(p.list, func(l livePiece) bool { return l.Call == d.Call && l.Kind == d.Kind && l.Name == d.Name })
	if i < 0 {
		p.list = append(p.list, livePiece{Call: d.Call, Agent: d.Agent, Kind: d.Kind, Name: d.Name, Cut: !p.there})
		i = len(p.list) - 1
	}
	text := p.list[i].Text + d.Text
	if over := len(text) - liveText; over > 0 {
		text = strings.ToValidUTF8(text[over:], "")
		p.list[i].Cut = true
	}
	p.list[i].Text = text
	return begins
}

// recorded takes an event of the log: what is recorded is not live any more.
func (p *ongoing) recorded(e *api.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there = true
	if len(p.list) == 0 {
		return
	}
	p.news = true
	switch e.GetType() {
	case "model_called", "tool_called":
		var d struct {
			Call struct {
				N     int32
				State string
			}
		}
		if json.Unmarshal([]byte(e.GetData()), &d) == nil && d.Call.State == "finished" {
			p.list = slices.DeleteFunc(p.list, func(l livePiece) bool { return l.Call == d.Call.N })
		}
	default: // an attempt begins or ends
		p.list = nil
	}
}

// now gives what there is.
func (p *ongoing) now() []livePiece {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// take tells whether something has changed since it was asked last.
func (p *ongoing) take() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.news
	p.news = false
	return news
}

// milliseconds is a duration of the API.
func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// saidOf puts what people decided about a call into a few words.
func saidOf(c *api.Call) string {
	who := c.GetDecidedBy()
	if who == "deadline" {
		who = "The deadline"
	}
	text := who + " " + said(&api.Decision{Decision: c.GetDecision()}) + " this call"
	if c.GetEdited() {
		text += " with other arguments"
	}
	if c.GetComment() != "" {
		text += ": " + clip(c.GetComment(), 200)
	}
	return text
}
