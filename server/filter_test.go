package server

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func TestParseFilter(t *testing.T) {
	for _, c := range []struct {
		text string
		want store.Query
	}{
		{"", store.Query{}},
		{"  \t ", store.Query{}},
		{"status:failed", store.Query{Status: []pipeline.RunStatus{"FAILED"}}},
		{"status:failed,RUNNING,failed", store.Query{Status: []pipeline.RunStatus{"FAILED", "RUNNING"}}},
		{" pipeline:nightly-x  status:queued ", store.Query{Pipeline: "nightly-x", Status: []pipeline.RunStatus{"QUEUED"}}},
		{"label.customer=42 label.team=", store.Query{Labels: map[string]string{"customer": "42", "team": ""}}},
		{`label.a="b c" label.d="\"=:" label.e=f=g:h`, store.Query{Labels: map[string]string{"a": "b c", "d": `"=:`, "e": "f=g:h"}}},
		{"label.a.b/c=ü", store.Query{Labels: map[string]string{"a.b/c": "ü"}}},
		{`pipeline:"a b"`, store.Query{Pipeline: "a b"}},
	} {
		got, err := parseFilter(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.text, d)
		}
	}
}

func TestParseFilterSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"failed", `unknown term "failed"`},
		{"state:failed", `unknown term "state:failed"; the terms are status:`},
		{"status=failed", `unknown term "status=failed"`},
		{"label.a:b", `unknown term`},
		{"status:faild", `unknown status "faild"; the statuses are queued, running`},
		{"status:", `unknown status ""`},
		{"status:failed,", `unknown status ""`},
		{"status:failed status:queued", "stands there twice"},
		{"pipeline:a pipeline:b", "stands there twice"},
		{"pipeline:", "needs a pipeline's id"},
		{"label.=x", "needs a name"},
		{"label.a=1 label.a=2", "label.a stands there twice"},
		{`label.a="x`, "quotes do not close"},
		{`label.a="x"y`, "a space must follow"},
		{"pipeline:a\x00b", "not text"},
		{"\xff", "not text"},
		{strings.Repeat("x", 5000), "longer than"},
	} {
		_, err := parseFilter(c.text)
		var r *refusal
		if !errors.As(err, &r) || r.violations[0].Field != "filter" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("status:failed,running pipeline:x label.k=v")
	f.Add(`label.a="b \" c" x`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseFilter(text)
		if err != nil {
			if _, ok := errors.AsType[*refusal](err); !ok {
				t.Fatalf("%q: %v is no refusal", text, err)
			}
			return
		}
		// What was understood can be said again.
		var b strings.Builder
		if q.Pipeline != "" {
			b.WriteString("pipeline:" + quote(q.Pipeline) + " ")
		}
		for i, s := range q.Status {
			b.WriteString(map[bool]string{true: " status:", false: ","}[i == 0] + string(s))
		}
		for k, v := range q.Labels {
			b.WriteString(" label." + k + "=" + quote(v))
		}
		again, err := parseFilter(b.String())
		if b.Len() > maxFilter {
			return
		}
		if err != nil {
			t.Fatalf("%q became %q: %v", text, b.String(), err)
		}
		if d := cmp.Diff(q, again); d != "" {
			t.Fatalf("%q became %q: %s", text, b.String(), d)
		}
	})
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func TestPageTokensAreBoundToTheirList(t *testing.T) {
	token := pageToken("runs status:failed", "place")
	if place, err := readPageToken("runs status:failed", token); err != nil || place != "place" {
		t.Errorf("%q, %v", place, err)
	}
	if place, err := readPageToken("x", ""); err != nil || place != "" {
		t.Errorf("no token: %q, %v", place, err)
	}
	changed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	changed[len(changed)-1] ^= 1
	for list, token := range map[string]string{
		"runs":               token,
		"runs status:failed": base64.RawURLEncoding.EncodeToString(changed),
		"a":                  "%%%",
		"b":                  "AAAA",
		"c":                  strings.Repeat("A", 10000),
	} {
		if place, err := readPageToken(list, token); err == nil {
			t.Errorf("%s: %q was taken for %q", list, token, place)
		}
	}
	for _, place := range []string{"-1", "x", "99999999999"} {
		if n, err := readPageNumber("steps", pageToken("steps", place)); err == nil {
			t.Errorf("%q was taken for %d", place, n)
		}
	}
}
