package trigger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The example of the specification of Standard Webhooks.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var exampleTime = time.Unix(1614265330, 0)

func standardHeader(id string, at time.Time, signature string) http.Header {
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	h.Set("webhook-signature", signature)
	return h
}

func signStandard(key, id string, at time.Time, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func hubHeader(key, body, id string) http.Header {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	h := http.Header{}
	h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	h.Set("X-GitHub-Delivery", id)
	return h
}

func TestWebhookSignatures(t *testing.T) {
	good := standardHeader(exampleID, exampleTime, exampleSignature)
	without := func(name string) http.Header {
		h := maps.Clone(good)
		h.Del(name)
		return h
	}
	with := func(name, value string) http.Header {
		h := maps.Clone(good)
		h.Set(name, value)
		return h
	}
	for _, test := range []struct {
		name   string
		scheme string
		secret string
		header http.Header
		body   string
		now    time.Time
		want   string // of the error; empty: it is good
	}{
		{"the specification's example", "", exampleSecret, good, exampleBody, exampleTime, ""},
		{"one of several signatures", "", exampleSecret, with("webhook-signature", "v1,AAAA v2,x "+exampleSignature+" v1a,y"), exampleBody, exampleTime, ""},
		{"a secret that is plain text", "", "plain", standardHeader("a", exampleTime, signStandard("plain", "a", exampleTime, "{}")), "{}", exampleTime, ""},
		{"just in time", "", exampleSecret, good, exampleBody, exampleTime.Add(Tolerance), ""},
		{"too old", "", exampleSecret, good, exampleBody, exampleTime.Add(Tolerance + time.Second), "more than 5m0s old"},
		{"from the future", "", exampleSecret, good, exampleBody, exampleTime.Add(-Tolerance - time.Second), "more than 5m0s ahead"},
		{"another body", "", exampleSecret, good, exampleBody + " ", exampleTime, "no signature"},
		{"another secret", "", "whsec_AAAA", good, exampleBody, exampleTime, "no signature"},
		{"another id", "", exampleSecret, with("webhook-id", "msg_other"), exampleBody, exampleTime, "no signature"},
		{"another time", "", exampleSecret, with("webhook-timestamp", "1614265331"), exampleBody, exampleTime, "no signature"},
		{"another version", "", exampleSecret, with("webhook-signature", strings.Replace(exampleSignature, "v1", "v2", 1)), exampleBody, exampleTime, "no signature"},
		{"no base64", "", exampleSecret, with("webhook-signature", "v1,***"), exampleBody, exampleTime, "no signature"},
		{"no signature", "", exampleSecret, without("webhook-signature"), exampleBody, exampleTime, "no signature"},
		{"no id", "", exampleSecret, without("webhook-id"), exampleBody, exampleTime, "webhook-id must hold an id"},
		{"an id that could shift the parts", "", exampleSecret, with("webhook-id", "a.1614265330"), exampleBody, exampleTime, "without blanks and dots"},
		{"an endless id", "", exampleSecret, with("webhook-id", strings.Repeat("a", 129)), exampleBody, exampleTime, "at most 128 bytes"},
		{"no timestamp", "", exampleSecret, without("webhook-timestamp"), exampleBody, exampleTime, "seconds since 1970"},
		{"a timestamp that is none", "", exampleSecret, with("webhook-timestamp", "1e9"), exampleBody, exampleTime, "seconds since 1970"},
		{"no secret", "", "", good, exampleBody, exampleTime, "no secret"},
		{"a secret that is broken", "", "whsec_*", good, exampleBody, exampleTime, "not what whsec_ promises"},
		{"GitHub", "github", "It's a Secret to Everybody", hubHeader("It's a Secret to Everybody", "Hello, World!", "d1"), "Hello, World!", exampleTime, ""},
		{"GitHub, another body", "github", "s", hubHeader("s", "{}", "d1"), "{ }", exampleTime, "X-Hub-Signature-256 is not that of the body"},
		{"GitHub, another secret", "github", "s", hubHeader("t", "{}", "d1"), "{}", exampleTime, "not that of the body"},
		{"GitHub, no delivery", "github", "s", hubHeader("s", "{}", ""), "{}", exampleTime, "x-github-delivery must hold an id"},
		{"GitHub, signed the standard way", "github", exampleSecret, with("X-GitHub-Delivery", "d"), exampleBody, exampleTime, "not that of the body"},
		{"standard, signed GitHub's way", "", "s", hubHeader("s", "{}", "d1"), "{}", exampleTime, "webhook-id must hold an id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := Verify(test.scheme, test.secret, test.header, []byte(test.body), test.now)
			switch {
			case test.want == "" && (err != nil || d.ID == "" || d.Key == ""):
				t.Errorf("it was refused: %v, %+v", err, d)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("the error is %v, not one with %q", err, test.want)
			}
		})
	}
	if got := hubHeader("It's a Secret to Everybody", "Hello, World!", "d").Get("X-Hub-Signature-256"); got != "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" {
		t.Errorf("GitHub's example is signed %s", got)
	}
}

// TestARepetitionHasTheSameKey holds that nobody makes a new delivery of an old one
// by changing what is not signed.
func TestARepetitionHasTheSameKey(t *testing.T) {
	a, err := Verify("github", "s", hubHeader("s", "{}", "one"), []byte("{}"), exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	h := hubHeader("s", "{}", "two")
	h.Set("X-Hub-Signature-256", strings.ToUpper(h.Get("X-Hub-Signature-256")[7:]))
	h.Set("X-Hub-Signature-256", "sha256="+h.Get("X-Hub-Signature-256"))
	b, err := Verify("github", "s", h, []byte("{}"), exampleTime)
	if err != nil || a.Key != b.Key {
		t.Errorf("the keys are %q and %q, %v", a.Key, b.Key, err)
	}
	later := exampleTime.Add(time.Hour)
	c, err := Verify("", "k", standardHeader("m", exampleTime, signStandard("k", "m", exampleTime, "{}")), []byte("{}"), exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Verify("", "k", standardHeader("m", later, signStandard("k", "m", later, "{}")), []byte("{}"), later)
	if err != nil || c.Key != d.Key {
		t.Errorf("the keys are %q and %q, %v", c.Key, d.Key, err)
	}
}

func TestHookInputs(t *testing.T) {
	declared := []pipeline.Input{{Name: "issue"}, {Name: "title"}}
	body := map[string]any{"issue": map[string]any{"number": int64(7)}, "title": "t", "more": true}
	headers := map[string]any{"x-github-event": "issues"}
	for _, test := range []struct {
		name   string
		inputs map[string]any
		body   any
		want   map[string]any
		err    string
	}{
		{"the body's fields", nil, body, map[string]any{"issue": body["issue"], "title": "t"}, ""},
		{"no body", nil, nil, map[string]any{}, ""},
		{"a body that is no object", nil, []any{}, nil, "must be a JSON object"},
		{"templates", map[string]any{"issue": "{{ body.issue.number }}", "title": "#{{ body.issue.number }} {{ headers['x-github-event'] }}"}, body, map[string]any{"issue": int64(7), "title": "#7 issues"}, ""},
		{"templates within", map[string]any{"issue": []any{"{{ body.title }}", map[string]any{"n": "{{ body.issue.number + 1 }}"}, int64(1)}}, body, map[string]any{"issue": []any{"t", map[string]any{"n": int64(8)}, int64(1)}}, ""},
		{"none at all", map[string]any{}, body, map[string]any{}, ""},
		{"what is not there", map[string]any{"issue": "{{ body.nothing.number }}"}, body, nil, "input issue cannot be made of the request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := HookInputs(&pipeline.WebhookTrigger{Inputs: test.inputs}, declared, test.body, headers)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("the error is %v, not one with %q", err, test.err)
				}
				return
			}
			if d := cmp.Diff(test.want, got); err != nil || d != "" {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}
