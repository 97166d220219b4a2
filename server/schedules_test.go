package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const triggered = `name: hooked
version: %V
on:
  cron: "0 6 * * 1"
  webhook: {secret: HOOK}
inputs: {title: none}
steps:
  - {id: a, action: debug}
`

// register registers a version of a pipeline.
func (f *fixture) register(source string) {
	f.t.Helper()
	body, _ := json.Marshal(map[string]string{"source": source})
	f.decoded("POST", "/v1/pipelines", string(body))
}

func TestSchedulesOverREST(t *testing.T) {
	f := start(t)
	f.register(strings.Replace(triggered, "%V", "1", 1))
	owned := f.decoded("GET", "/v1/schedules/on.hooked", "")
	if owned["owned"] != true || owned["pipeline"] != "hooked" || owned["overlap"] != "skip" || owned["next_fire"] == nil {
		t.Errorf("the pipeline's own schedule is %v", owned)
	}
	made := f.decoded("POST", "/v1/schedules", `{"pipeline": "hooked", "cron": ["30 2 * * *"], "timezone": "Europe/Berlin", "inputs": {"title": "t"}, "jitter": "90s"}`)
	if made["id"] != "hooked" || made["catch_up_window"] != "1h" || made["jitter"] != "1m30s" || made["catch_up"] != "latest" {
		t.Errorf("the schedule is %v", made)
	}
	for _, test := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v1/schedules", `{"pipeline": "hooked", "cron": ["@daily"]}`, 409, "schedule_exists"},
		{"POST", "/v1/schedules", `{"id": "b", "pipeline": "hooked", "cron": ["0 0 30 2 *"]}`, 400, "never comes"},
		{"POST", "/v1/schedules", `{"id": "b", "pipeline": "hooked", "cron": ["@daily"], "timezone": "X/Y"}`, 400, "time zone"},
		{"POST", "/v1/schedules", `{"id": "b", "pipeline": "hooked", "cron": ["@daily"], "inputs": {"titel": 1}}`, 400, "did you mean"},
		{"POST", "/v1/schedules", `{"id": "b", "pipeline": "hooked", "cron": ["@daily"], "overlap": "no", "jitter": "2h"}`, 400, "invalid_overlap"},
		{"POST", "/v1/schedules", `{"id": "on.b", "pipeline": "hooked", "cron": ["@daily"]}`, 400, "reserved_id"},
		{"POST", "/v1/schedules", `{"id": "b", "pipeline": "nope", "cron": ["@daily"]}`, 404, "pipeline_not_found"},
		{"PUT", "/v1/schedules/on.hooked", `{"pipeline": "hooked", "cron": ["@daily"]}`, 409, "schedule_owned"},
		{"PUT", "/v1/schedules/hooked", `{"pipeline": "hooked", "cron": ["@daily"], "revision": "7"}`, 409, "schedule_changed"},
		{"DELETE", "/v1/schedules/on.hooked", "", 409, "schedule_owned"},
		{"GET", "/v1/schedules/none", "", 404, "schedule_not_found"},
		{"POST", "/v1/schedules/hooked:backfill", `{}`, 400, "required"},
		{"POST", "/v1/schedules/hooked:backfill", `{"from": "2001-01-01T00:00:00Z"}`, 400, "too_old"},
	} {
		if code, _, text := f.do(test.method, test.path, test.body); code != test.code || !strings.Contains(text, test.want) {
			t.Errorf("%s %s %s: %d %s, not %d with %s", test.method, test.path, test.body, code, text, test.code, test.want)
		}
	}
	if p := f.decoded("POST", "/v1/schedules/hooked:pause", `{}`); p["paused"] != true {
		t.Errorf("paused: %v", p)
	}
	if list, _ := f.decoded("GET", "/v1/schedules/hooked/fires", "")["next"].([]any); len(list) != 0 {
		t.Errorf("a paused schedule fires at %v", list)
	}
	if p := f.decoded("POST", "/v1/schedules/hooked:resume", `{}`); p["paused"] != false {
		t.Errorf("resumed: %v", p)
	}
	if p := f.decoded("PUT", "/v1/schedules/hooked", `{"pipeline": "hooked", "cron": ["0 * * * *"]}`); p["jitter"] != "0s" || p["timezone"] != "" {
		t.Errorf("updated: %v", p)
	}
	if list, _ := f.decoded("GET", "/v1/schedules/hooked/fires?next=3", "")["next"].([]any); len(list) != 3 {
		t.Errorf("the next fires are %v", list)
	}
	to := time.Now().UTC() // given, as the next hour may begin between two calls
	times := fmt.Sprintf(`{"from": %q, "to": %q}`, to.Add(-150*time.Minute).Format(time.RFC3339), to.Format(time.RFC3339))
	for i, want := range []float64{2, 0} {
		got := f.decoded("POST", "/v1/schedules/hooked:backfill", times)
		if n, _ := got["added"].(float64); n < want || i == 1 && n != 0 {
			t.Errorf("backfill %d added %v", i, got)
		}
	}
	if list, _ := f.decoded("GET", "/v1/schedules", "")["schedules"].([]any); len(list) != 2 {
		t.Errorf("the schedules are %v", list)
	}
	f.decoded("DELETE", "/v1/schedules/hooked", "")
	f.register("name: hooked\nversion: 2\nsteps: [{id: a, action: debug}]\n")
	if code, _, _ := f.do("GET", "/v1/schedules/on.hooked", ""); code != 404 {
		t.Errorf("a pipeline without on still has its schedule: %d", code)
	}
}

func TestWebhooksOverHTTP(t *testing.T) {
	f := start(t)
	f.register(strings.Replace(triggered, "%V", "1", 1))
	f.srv.cfg.Secret = func(name string) (string, bool) { return "key", name == "HOOK" }
	handler := f.srv.Handler(nil)
	now := time.Now()
	send := func(path, id, body string, at time.Time, key string) (int, string) {
		mac := hmac.New(sha256.New, []byte(key))
		stamp := strconv.FormatInt(at.Unix(), 10)
		mac.Write([]byte(id + "." + stamp + "." + body))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+path, strings.NewReader(body))
		r.Header.Set("Origin", "https://elsewhere.example") // and no content type
		r.Header.Set("webhook-id", id)
		r.Header.Set("webhook-timestamp", stamp)
		r.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	var first struct {
		Run pipeline.RunID `json:"run_id"`
	}
	code, text := send("/v1/hooks/hooked", "m1", `{"title": "broken", "more": 1}`, now, "key")
	if err := json.Unmarshal([]byte(text), &first); code != 202 || err != nil || first.Run == "" {
		t.Fatalf("%d %s", code, text)
	}
	for _, test := range []struct {
		name, path, id, body string
		at                   time.Time
		key                  string
		code                 int
		want                 string
	}{
		{"repeated", "/v1/hooks/hooked", "m1", `{"title": "broken", "more": 1}`, now.Add(time.Minute), "key", 200, string(first.Run)},
		{"another body under the id", "/v1/hooks/hooked", "m1", `{}`, now, "key", 409, "idempotency"},
		{"another key", "/v1/hooks/hooked", "m2", `{}`, now, "kex", 401, "bad_signature"},
		{"old", "/v1/hooks/hooked", "m2", `{}`, now.Add(-6 * time.Minute), "key", 401, "old"},
		{"no JSON", "/v1/hooks/hooked", "m2", `{`, now, "key", 400, "invalid_json"},
		{"ill-typed", "/v1/hooks/hooked", "m2", `{"title": {}}`, now, "key", 400, "title"},
		{"too large", "/v1/hooks/hooked", "m2", strings.Repeat(" ", 2<<20), now, "key", 413, "too_large"},
		{"unknown", "/v1/hooks/nope", "m2", `{}`, now, "key", 404, "no_such_webhook"},
	} {
		if code, text := send(test.path, test.id, test.body, test.at, test.key); code != test.code || !strings.Contains(text, test.want) {
			t.Errorf("%s: %d %s, not %d with %s", test.name, code, text, test.code, test.want)
		}
	}
	if n := len(f.engine.subs); n != 1 || f.engine.subs[0].Inputs["title"] != "broken" {
		t.Errorf("%d runs were started", n)
	}
}
