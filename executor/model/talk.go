package model

import (
	"sync"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// talk is what the calls of one conversation of a step have in common: those of
// an agent, of an <AUTO> tag, or of the step itself.
type talk struct {
	mu        sync.Mutex
	line      *line      // of the newest call that is recorded; nil: none is
	model     string     // that answered it, by its name in the registry; empty: none has
	compacted *compacted // nil: it is whole
	seen      []Message  // of the newest request
	digests   []digest   // of seen
	asked     *Request   // the newest one
	parts     []digest   // of asked
	size      int        // of the tools and the schema of asked, in bytes
}

// frame names the parts of a request that its conversation has in common, and says
// how many bytes its tools and its schema take. What the request before it had too
// is not read again.
func (t *talk) frame(q *Request) ([]digest, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, measured := make([]digest, len(parts)), t.asked != nil
	for i, p := range parts {
		if t.asked != nil && p.same(t.asked, q) {
			list[i] = t.parts[i]
			continue
		}
		list[i] = digestOf(p.value(q))
		measured = measured && p.name != "tools" && p.name != "schema"
	}
	if !measured {
		t.size = frameOf(q)
	}
	t.asked, t.parts = q, list
	return list, t.size
}

// frameOf is how many bytes the tools and the schema of a request take.
func frameOf(q *Request) int {
	n := 0
	for i := range q.Tools {
		n += len(q.Tools[i].Name) + len(q.Tools[i].Description) + len(pipeline.EncodeValue(mapOrNil(q.Tools[i].Schema)))
	}
	if q.Schema != nil {
		n += len(pipeline.EncodeValue(q.Schema))
	}
	return n
}

// digest names the messages of a request. Those that the request before had too,
// which are most of them, are not read again: messages that were sent are not
// changed.
func (t *talk) digest(messages []Message) []digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]digest, len(messages))
	for i := range messages {
		if i < len(t.seen) && t.seen[i].is(&messages[i]) {
			list[i] = t.digests[i]
		} else {
			list[i] = digestOf(messageValue(&messages[i]))
		}
	}
	t.seen, t.digests = messages, list
	return list
}

// is reports whether two messages have the very same blocks.
func (m *Message) is(o *Message) bool {
	return m.Role == o.Role && len(m.Blocks) == len(o.Blocks) && len(m.Blocks) > 0 && &m.Blocks[0] == &o.Blocks[0]
}

type talkKey struct {
	agent, param string
	in           int32
	compact      bool // summaries are no part of what they sum up
}

func talkKeyOf(agent, param string, in int32, phase Phase) talkKey {
	return talkKey{agent, param, in, phase == PhaseCompact}
}

// talks are those of a journal.
type talks struct {
	mu   sync.Mutex
	list map[talkKey]*talk
}

// talkOf finds the conversation that a request belongs to; without a journal it
// is one of its own.
func talkOf(j *executor.Journal, q *Request) *talk {
	if j == nil {
		return &talk{}
	}
	all, _ := j.Memo(talkKey{}, func() any { return recalled(j) }).(*talks)
	return all.of(talkKeyOf(q.Agent, q.Param, q.In, q.Phase))
}

func (t *talks) of(key talkKey) *talk {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.list[key] == nil {
		t.list[key] = &talk{}
	}
	return t.list[key]
}

// recalled are the conversations of earlier attempts.
func recalled(j *executor.Journal) *talks {
	all := &talks{list: map[talkKey]*talk{}}
	past := j.Events()
	lines, given := map[int32]*line{}, results{}
	for i := range past {
		e := &past[i]
		c := e.Data.Call
		given.note(e)
		if e.Type != pipeline.ModelCalled || c == nil || c.State != pipeline.InvocationFinished {
			continue
		}
		m, ok := c.Request.(map[string]any)
		if !ok {
			continue
		}
		l := recalledLine(lines, given, c, m)
		lines[c.N] = l
		t := all.of(talkKeyOf(c.Agent, c.Param, c.In, Phase(c.Phase)))
		t.line = l
		if !c.Failed {
			choice, _ := c.Choice.(map[string]any)
			t.model, _ = choice["model"].(string)
		}
		if k := recalledCompaction(m); k != nil {
			t.compacted = k
		}
	}
	return all
}

// recalledLine is the line of a recorded call; lines holds those of the calls
// before it.
func recalledLine(lines map[int32]*line, given results, c *pipeline.Invocation, m map[string]any) *line {
	l := &line{n: c.N, parts: make([]digest, len(parts))}
	base, based := baseOf(m)
	from := lines[base]
	if !based || from == nil {
		from = &line{parts: make([]digest, len(parts))}
		for i := range parts {
			from.parts[i] = digestOf(nil)
		}
	}
	keep, _ := m["keep"].(int64)
	l.messages = append(l.messages, from.messages[:min(int(keep), len(from.messages))]...)
	whole, err := given.whole(m["add"])
	if err != nil {
		whole = m["add"] // no request is like that: all of it is told again
	}
	add, _ := whole.([]any)
	for _, v := range add {
		l.messages = append(l.messages, digestOf(v))
	}
	for i, p := range parts {
		l.parts[i] = from.parts[i]
		if v, ok := m[p.name]; ok {
			l.parts[i] = digestOf(v)
		}
	}
	if answer, ok := c.Response.(map[string]any); ok {
		l.messages = append(l.messages, digestOf(answer["message"]))
	}
	return l
}
