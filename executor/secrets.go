package executor

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// escape is a byte in a URL.
var escape = regexp.MustCompile("%[0-9A-F]{2}")

// minSecret is the length below which a value is too common to blot out.
const minSecret = 4

// longLine is the length from which a line of a secret of several lines is
// blotted out on its own too.
const longLine = 16

// redactor blots out secrets: their values and their usual encodings. It is
// filled before it is used, then shared.
type redactor struct {
	forms []form     // the longest first
	first *[256]bool // bytes with which a form begins; nil: there are none
}

// form is a spelling of a secret.
type form struct{ text, mark string }

// redactor knows the secrets that the steps of the run's pipeline may ask for,
// also those of others, which a step may come by in the workspace.
func (r *runState) redactor() *redactor {
	x := r.lane.ex.hidden.clone()
	for _, name := range r.prog.plan.Secrets {
		if value, ok := r.lane.ex.cfg.Secret(name); ok {
			x.add(name, value)
		}
	}
	return x
}

// clone is a redactor of its own that knows as much.
func (x *redactor) clone() *redactor {
	own := &redactor{forms: slices.Clone(x.forms)}
	if x.first != nil {
		first := *x.first
		own.first = &first
	}
	return own
}

func (x *redactor) add(name, value string) { x.blot(value, "[secret "+name+"]") }

// blot puts a mark in the place of a value.
func (x *redactor) blot(value, mark string) {
	for _, s := range spellings(value) {
		if len(s) < minSecret || slices.ContainsFunc(x.forms, func(f form) bool { return f.text == s }) {
			continue
		}
		x.forms = append(x.forms, form{s, mark})
		if x.first == nil {
			x.first = new([256]bool)
		}
		x.first[s[0]] = true
	}
	slices.SortStableFunc(x.forms, func(a, b form) int { return len(b.text) - len(a.text) })
}

// spellings are the forms in which a value may come to light: as it is, as
// base64, in a URL and in JSON.
func spellings(value string) []string {
	if len(value) < minSecret {
		return nil
	}
	raw := []byte(value)
	list := []string{
		value,
		base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw),
		base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		inQuotes(pipeline.AppendString(nil, value)), inQuotes([]byte(strconv.QuoteToASCII(value))),
	}
	escaped := url.QueryEscape(value)
	spaced := strings.ReplaceAll(escaped, "+", "%20")
	for _, s := range []string{escaped, spaced, strings.ReplaceAll(spaced, "%2F", "/"), url.PathEscape(value)} {
		list = append(list, s, escape.ReplaceAllStringFunc(s, strings.ToLower))
	}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(value) == nil {
			list = append(list, inQuotes(bytes.TrimSpace(b.Bytes())))
		}
	}
	if lines := strings.Split(value, "\n"); len(lines) > 1 {
		for _, line := range lines {
			if line = strings.TrimSpace(line); len(line) >= longLine {
				list = append(list, line)
			}
		}
	}
	return list
}

func inQuotes(quoted []byte) string { return string(quoted[1 : len(quoted)-1]) }

func (x *redactor) empty() bool { return x == nil || len(x.forms) == 0 }

// text blots out what stands in s.
func (x *redactor) text(s string) string {
	out, _ := x.pass(s, true)
	return out
}

// pass blots out what stands in s. Where more text may follow, it keeps back the
// end that may be the beginning of a secret.
func (x *redactor) pass(s string, last bool) (out, rest string) {
	if x.empty() {
		return s, ""
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); {
		if !x.first[s[i]] {
			i++
			continue
		}
		end, mark, open := x.at(s, i)
		for k := i + 1; k < end; k++ { // forms that overlap are one
			more, _, within := x.at(s, k)
			end, open = max(end, more), open || within
		}
		switch {
		case open && !last:
			b.WriteString(s[done:i])
			return b.String(), s[i:]
		case end > i:
			b.WriteString(s[done:i])
			b.WriteString(mark)
			i, done = end, end
		default:
			i++
		}
	}
	if done == 0 {
		return s, ""
	}
	b.WriteString(s[done:])
	return b.String(), ""
}

// at finds the longest form that begins at i, and tells whether s ends within one.
func (x *redactor) at(s string, i int) (end int, mark string, open bool) {
	end = i
	if !x.first[s[i]] {
		return end, "", false
	}
	for _, f := range x.forms {
		if len(s)-i < len(f.text) {
			open = open || strings.HasPrefix(f.text, s[i:])
			continue
		}
		if end == i && strings.HasPrefix(s[i:], f.text) {
			end, mark = i+len(f.text), f.mark
		}
	}
	return end, mark, open
}

// bytes blots out what stands in a file.
func (x *redactor) bytes(data []byte) []byte {
	if x.empty() {
		return data
	}
	return []byte(x.text(string(data)))
}

// value blots out what stands in the texts of a JSON value.
func (x *redactor) value(v any) any {
	if x.empty() {
		return v
	}
	switch v := v.(type) {
	case string:
		return x.text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = x.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[x.text(k)] = x.value(e)
		}
		return out
	}
	return v
}

func noSecret(name string) *pipeline.Failure {
	return pipeline.Failuref(pipeline.CategoryValidation,
		"the secret %s has no value; set ORCHESTRATOR_SECRET_%s where the server runs", name, strings.ToUpper(name))
}

// hidden is the name `secrets` in the fields where secrets may stand.
type hidden struct {
	declared []string
	find     func(name string) (string, bool)
	shown    bool    // as they are recorded: each is its mark
	missing  *string // gets the name of one that has no value
}

// Attr is a secret's value.
func (h hidden) Attr(name string) (any, bool) {
	if !slices.Contains(h.declared, name) {
		return nil, false
	}
	if h.shown {
		return "[secret " + name + "]", true
	}
	v, ok := h.find(name)
	if !ok {
		*h.missing = name
	}
	return v, ok
}

// Value is null: secrets are named one by one.
func (hidden) Value() any { return nil }

// withSecrets evaluates an entry in which secrets may stand. shown is what may
// be recorded of it.
func (r *runState) withSecrets(ev evaluation, e *pipeline.Entry, what string, red *redactor) (value, shown any, fail *pipeline.Failure) {
	if len(r.prog.plan.Secrets) == 0 {
		value, fail = ev.field(&e.Value, what)
		return value, value, fail
	}
	missing := ""
	names := hidden{declared: r.prog.plan.Secrets, find: r.lane.ex.cfg.Secret, missing: &missing}
	value, fail = ev.with("secrets", names).field(&e.Value, what)
	switch {
	case fail != nil && missing != "":
		return nil, nil, noSecret(missing)
	case fail != nil:
		return nil, nil, fail
	}
	names.shown = true
	shown, wrong := ev.with("secrets", names).field(&e.Value, what)
	if wrong != nil { // it does something to the value that cannot be done to the mark
		shown = "[secret]"
	}
	red.addDifference(value, shown)
	return value, shown, nil
}

// addDifference takes the texts of a value that are not recorded as they are for
// secrets too: what was made of a secret is one.
func (x *redactor) addDifference(value, shown any) {
	switch v := value.(type) {
	case string:
		mark, ok := shown.(string)
		if !ok {
			mark = "[secret]"
		}
		if v != mark {
			x.blot(v, mark)
		}
	case []any:
		other, _ := shown.([]any)
		for i := range v {
			var s any
			if i < len(other) {
				s = other[i]
			}
			x.addDifference(v[i], s)
		}
	case map[string]any:
		other, _ := shown.(map[string]any)
		for k := range v {
			x.addDifference(v[k], other[k])
		}
	}
}
