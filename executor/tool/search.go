package tool

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	unknownWindow = 100_000 // tokens, of a model of which nothing is known
	bytesPerToken = 4       // about
	maxBrought    = 8       // tools that one search brings
)

// catalogue holds back the tools that nobody has named, until a search brings
// them.
type catalogue struct {
	tool Tool

	mu      sync.Mutex
	brought []string // in the order of their coming
}

// fold lets the agent search for tools where all of them together would take too
// much of its model's window.
func (s *source) fold(env executor.Env, w Want, b *box) {
	offered := b.offered()
	if len(offered) == 0 {
		return // each was asked for by name
	}
	size := 0
	for _, list := range [][]Tool{b.list, offered} {
		for i := range list {
			size += weight(&list[i])
		}
	}
	window := w.Window
	if window <= 0 {
		window = unknownWindow
	}
	if len(b.list)+len(offered) <= s.cfg.Most && float64(size) <= s.cfg.Share*float64(window)*bytesPerToken {
		return
	}
	c := &catalogue{}
	c.tool = s.guarded(Tool{
		Name:        Search,
		Description: fmt.Sprintf("Finds tools by what they do. There are %d more tools than you are shown; those that this finds can be called from the next turn on.", len(offered)),
		Effect:      pipeline.EffectPure,
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"query"},
			"properties": map[string]any{
				"query": map[string]any{"type": "string", "minLength": int64(1), "maxLength": int64(1000), "description": "a few words on what the tool should do, or its name"},
			},
		},
		Run: func(_ context.Context, _ executor.Env, call Call) (Result, error) {
			query, _ := call.Arguments["query"].(string)
			return c.find(b.offered(), query), nil
		},
	})
	c.recall(env, w.Agent.Name, offered)
	b.search = c
}

// weight is about how many bytes of a request a tool takes.
func weight(t *Tool) int {
	return len(t.Name) + len(t.Description) + len(pipeline.EncodeValue(t.Schema))
}

// shown are the search, and what it has brought: what was there stays in its
// place, so that providers can cache it.
func (c *catalogue) shown(offered []Tool) []Tool {
	out := []Tool{c.tool}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.brought {
		if i := slices.IndexFunc(offered, func(t Tool) bool { return t.Name == name }); i >= 0 {
			out = append(out, offered[i])
		}
	}
	return out
}

// bring shows a tool from now on.
func (c *catalogue) bring(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.brought, name) {
		c.brought = append(c.brought, name)
	}
}

// find brings the tools that suit a query best.
func (c *catalogue) find(hidden []Tool, query string) Result {
	var out strings.Builder
	for _, i := range rank(hidden, query) {
		t := &hidden[i]
		c.bring(t.Name)
		fmt.Fprintf(&out, "- %s: %s\n", t.Name, upTo(strings.Join(strings.Fields(t.Description), " "), 300))
	}
	if out.Len() == 0 {
		return Text("No tool has to do with that. Try other words; names are searched, too.")
	}
	return Text("These tools can be called from now on:\n" + out.String())
}

// recall brings what searches of earlier attempts have found, as their results
// list it.
func (c *catalogue) recall(env executor.Env, agent string, offered []Tool) {
	if env.Journal == nil {
		return
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			for line := range strings.SplitSeq(v, "\n") {
				name, _, _ := strings.Cut(strings.TrimPrefix(line, "- "), ": ")
				if slices.ContainsFunc(offered, func(t Tool) bool { return t.Name == name }) {
					c.bring(name)
				}
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				walk(v[k])
			}
		}
	}
	for _, e := range env.Journal.Events() {
		d := e.Data.Call
		if e.Type == pipeline.ToolCalled && d != nil && d.Name == Search && d.Agent == agent && d.State == pipeline.InvocationFinished {
			walk(d.Response)
		}
	}
}

// The usual parameters of BM25.
const (
	bm25K = 1.2
	bm25B = 0.75
)

// rank gives the tools that have to do with a query, the best first, at most
// maxBrought: by BM25 over their names, which count twice, and descriptions.
// Equals stay in their order.
func rank(tools []Tool, query string) []int {
	docs := make([][]string, len(tools))
	in := map[string]int{} // in how many tools a word stands
	total := 0
	for i := range tools {
		name := words(tools[i].Name)
		docs[i] = slices.Concat(name, name, words(tools[i].Description))
		total += len(docs[i])
		seen := map[string]bool{}
		for _, w := range docs[i] {
			if !seen[w] {
				seen[w] = true
				in[w]++
			}
		}
	}
	asked := words(query)
	slices.Sort(asked)
	asked = slices.Compact(asked)
	type scored struct {
		i     int
		score float64
	}
	var list []scored
	for i, doc := range docs {
		score := 0.0
		for _, w := range asked {
			n := 0.0
			for _, d := range doc {
				if d == w {
					n++
				}
			}
			if n == 0 {
				continue
			}
			rare := math.Log(1 + (float64(len(docs))-float64(in[w])+0.5)/(float64(in[w])+0.5))
			long := 1 - bm25B + bm25B*float64(len(doc))*float64(len(docs))/float64(total)
			score += rare * n * (bm25K + 1) / (n + bm25K*long)
		}
		if strings.EqualFold(tools[i].Name, strings.TrimSpace(query)) {
			score = math.Inf(1)
		}
		if score > 0 {
			list = append(list, scored{i, score})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	var out []int
	for _, s := range list[:min(len(list), maxBrought)] {
		out = append(out, s.i)
	}
	return out
}

// words are the words of a text in lower case, also those of read_file and
// readFile, without the end of plurals.
func words(s string) []string {
	var spaced strings.Builder
	var before rune
	for _, r := range s {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			spaced.WriteByte(' ')
		case unicode.IsUpper(r) && unicode.IsLower(before):
			spaced.WriteByte(' ')
			spaced.WriteRune(unicode.ToLower(r))
		default:
			spaced.WriteRune(unicode.ToLower(r))
		}
		before = r
	}
	list := strings.Fields(spaced.String())
	for i, w := range list {
		if len(w) > 3 && strings.HasSuffix(w, "s") && !strings.HasSuffix(w, "ss") {
			list[i] = w[:len(w)-1]
		}
	}
	return list
}
