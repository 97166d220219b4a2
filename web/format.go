package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// state is the status of a run or step in small letters, as it stands in class
// names and icon names: queued, pending, running, waiting, paused, completed,
// failed, skipped, cancelled or unknown.
type state string

func runState(s api.Run_Status) state {
	if s == api.Run_STATUS_UNSPECIFIED {
		return "unknown"
	}
	return state(strings.ToLower(s.String()))
}

func stepState(s api.Step_Status) state {
	if s == api.Step_STATUS_UNSPECIFIED {
		return "unknown"
	}
	return state(strings.ToLower(s.String()))
}

// Word is the state as people read it.
func (s state) Word() string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(string(s[:1])) + string(s[1:])
}

func (s state) class() string { return "s-" + string(s) }

func finalRun(s api.Run_Status) bool {
	return s == api.Run_COMPLETED || s == api.Run_FAILED || s == api.Run_CANCELLED
}

func finalStep(s api.Step_Status) bool {
	switch s {
	case api.Step_COMPLETED, api.Step_FAILED, api.Step_SKIPPED, api.Step_CANCELLED:
		return true
	case api.Step_STATUS_UNSPECIFIED, api.Step_PENDING, api.Step_RUNNING, api.Step_WAITING:
	}
	return false
}

// exact is a time as the tooltip shows it.
func exact(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

// clock is the time of day, for lists of events and logs.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// ahead says how long after now t is. static/live.js says it the same way.
func ahead(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case d <= 0:
		return "now"
	case d < time.Minute:
		return "in " + strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return "in " + strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return "in " + strconv.Itoa(int(d.Hours())) + " h"
	case d < 60*24*time.Hour:
		return "in " + strconv.Itoa(int(d.Hours()/24)) + " d"
	}
	return t.UTC().Format("2006-01-02")
}

// count is a number with its thousands set apart.
func count[T ~int | ~int32 | ~int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is a count with its noun.
func plural[T ~int | ~int32 | ~int64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// dollars is an amount of money; small ones keep the digits that matter.
func dollars(usd float64) string {
	if usd != 0 && math.Abs(usd) < 0.01 {
		return "$" + strconv.FormatFloat(usd, 'f', 4, 64)
	}
	return "$" + strconv.FormatFloat(usd, 'f', 2, 64)
}

// cost is what calls of models have cost, some of which have a price that nobody
// knows. Empty: nothing.
func cost(usd float64, unpriced int64) string {
	switch {
	case unpriced > 0 && usd > 0:
		return dollars(usd) + " and unknown"
	case unpriced > 0:
		return "unknown"
	case usd > 0:
		return dollars(usd)
	}
	return ""
}

// costOf is what a usage has cost. Empty: nothing.
func costOf(u *api.Usage) string { return cost(u.GetCostUsd(), int64(u.GetUnpricedCalls())) }

// short shortens a run's id: its beginning says when, its end tells apart.
func short(id string) string {
	if len(id) <= 16 {
		return id
	}
	return id[:8] + "\u2026" + id[len(id)-4:]
}

// clip cuts a text to at most n characters on one line.
func clip(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "\u2026"
}

// pretty indents JSON text; integers stay as they were written. Longer text
// than limit is cut, and the second result says by how much.
func pretty(text string, limit int) (string, int) {
	if text == "" {
		return "", 0
	}
	out := text
	if len(text) <= limit {
		var b bytes.Buffer
		if json.Indent(&b, []byte(text), "", "  ") == nil {
			out = b.String()
		}
	}
	// A lone text reads better as text than as a JSON string.
	var s string
	if strings.HasPrefix(text, `"`) && json.Unmarshal([]byte(text), &s) == nil {
		out = s
	}
	more := max(0, len(out)-limit)
	if more > 0 {
		out = strings.ToValidUTF8(out[:limit], "")
	}
	if text[0] == '{' || text[0] == '[' {
		out = unescaped.Replace(out)
	}
	return out, more
}

// unescaped writes in JSON as they are the characters that Go's encoder escapes
// for pages that take it for HTML; ours escape it themselves. A backslash that is
// itself escaped stays.
var unescaped = strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// num is a coordinate of a drawing, to the tenth of a pixel.
func num(f float64) string {
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64)
}

// link builds an address from a path and pairs of query keys and values; empty
// values are left out.
func link(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func pathOfRun(id string) string { return "/runs/" + url.PathEscape(id) }

func pathOfPipeline(id string) string { return "/pipelines/" + url.PathEscape(id) }

// parsePosition reads "line:column".
func parsePosition(s string) (line, column int32, ok bool) {
	a, b, found := strings.Cut(s, ":")
	if !found {
		return 0, 0, false
	}
	l, err1 := strconv.ParseInt(a, 10, 32)
	c, err2 := strconv.ParseInt(b, 10, 32)
	return int32(l), int32(c), err1 == nil && err2 == nil
}

// number reads a number from an address; anything else is 0.
func number(s string) int32 {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int32(n)
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// exactOr is the exact time, or nothing if it is missing.
func exactOr(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return exact(t)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// lowered is the state of a status in the words of JSON.
func lowered(status string) state { return state(strings.ToLower(status)) }

// member is one member of a JSON object.
type member struct{ Name, Value string }

// members takes a JSON object apart in the order of its text.
func members(object string) []member {
	dec := json.NewDecoder(strings.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var out []member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return out
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return out
		}
		out = append(out, member{Name: fmt.Sprint(name), Value: string(raw)})
	}
	return out
}

// jsonList takes a JSON list apart: Name is an entry as people read it, Value
// its JSON.
func jsonList(text string) []member {
	var raw []json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return nil
	}
	out := make([]member, len(raw))
	for i, r := range raw {
		out[i] = member{Name: typed(string(r)), Value: string(r)}
	}
	return out
}
