package server

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (f *fixture) approval(a pipeline.Approval) *pipeline.Approval {
	f.t.Helper()
	a.ID, a.Run, a.Status = pipeline.NewApprovalID(), f.create(), pipeline.ApprovalOpen
	a.Pipeline, a.Path = "hello", "gate"
	a.CreatedAt = a.Run.Time()
	f.engine.ask(&a)
	return &a
}

func (f *fixture) decoded(method, path, body string) map[string]any {
	f.t.Helper()
	code, _, text := f.do(method, path, body)
	if code != 200 {
		f.t.Fatalf("%s %s: %d %s", method, path, code, text)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		f.t.Fatal(err)
	}
	return m
}

func TestAnApprovalIsListedDecidedOnceAndThenConflicts(t *testing.T) {
	f := start(t)
	a := f.approval(pipeline.Approval{Kind: pipeline.ApprovalApprove, Question: "Deploy?"})
	list := f.decoded("GET", "/v1/approvals?status=open", "")
	if got := list["approvals"].([]any); len(got) != 1 || got[0].(map[string]any)["id"] != string(a.ID) {
		t.Fatalf("list: %v", list)
	}
	path := "/v1/approvals/" + string(a.ID)
	got := f.decoded("POST", path+":decide", `{"decision":"approve","comment":"go"}`)
	if got["status"] != "decided" {
		t.Errorf("decided: %v", got)
	}
	f.refused(409, "already_decided", "POST", path+":decide", `{"decision":"reject"}`)
	if list := f.decoded("GET", "/v1/approvals?status=open", ""); len(list["approvals"].([]any)) != 0 {
		t.Errorf("still open: %v", list)
	}
	messages, err := f.st.Inbox(t.Context(), []pipeline.RunID{a.Run})
	if err != nil || len(messages) != 1 {
		t.Fatalf("inbox: %v %v", messages, err)
	}
	d, err := pipeline.DecodeDecision(messages[0].Body)
	if err != nil || d.Decision != "approve" || d.Comment != "go" || d.Actor != localUser {
		t.Errorf("message: %+v %v", d, err)
	}
}

func TestAnAnswerIsCheckedByItsType(t *testing.T) {
	f := start(t)
	a := f.approval(pipeline.Approval{Kind: pipeline.ApprovalAsk, Question: "How many?", Schema: &pipeline.Type{Kind: "integer"}})
	path := "/v1/approvals/" + string(a.ID) + ":decide"
	f.refused(400, "invalid_answer", "POST", path, `{"decision":"answer","value":"many"}`)
	f.refused(400, "wrong_decision", "POST", path, `{"decision":"approve"}`)
	f.refused(400, "required", "POST", path, `{}`)
	got := f.decoded("POST", path, `{"decision":"answer","value":3}`)
	if d := got["decisions"].([]any)[0].(map[string]any); d["value"] != 3.0 {
		t.Errorf("decision: %v", d)
	}
}

func TestApprovalsThatDoNotExist(t *testing.T) {
	f := start(t)
	f.refused(404, "approval_not_found", "GET", "/v1/approvals/nonsense", "")
	f.refused(404, "approval_not_found", "GET", "/v1/approvals/"+string(pipeline.NewApprovalID()), "")
	f.refused(400, "invalid_status", "GET", "/v1/approvals?status=late", "")
}

func TestASignalLandsInTheInbox(t *testing.T) {
	f := start(t)
	id := f.create()
	f.decoded("POST", "/v1/runs/"+string(id)+"/signals/go-on", `{"data":{"n":9007199254740993}}`)
	messages, err := f.st.Inbox(t.Context(), []pipeline.RunID{id})
	if err != nil || len(messages) != 1 {
		t.Fatalf("inbox: %v %v", messages, err)
	}
	if got := string(messages[0].Body); got != `{"data":{"n":9007199254740993},"name":"go-on"}` {
		t.Errorf("body: %s", got)
	}
	for range 2 { // the answer to the first was lost
		f.decoded("POST", "/v1/runs/"+string(id)+"/signals/go-on", `{"data":1,"idempotency_key":"k"}`)
	}
	if messages, err = f.st.Inbox(t.Context(), []pipeline.RunID{id}); err != nil || len(messages) != 2 {
		t.Errorf("inbox: %v %v", messages, err)
	}
	f.refused(409, "idempotency_key_reused", "POST", "/v1/runs/"+string(id)+"/signals/go-on", `{"data":2,"idempotency_key":"k"}`)
	f.refused(400, "too_long", "POST", "/v1/runs/"+string(id)+"/signals/go-on", `{"idempotency_key":"`+strings.Repeat("k", 257)+`"}`)
	f.refused(400, "invalid_name", "POST", "/v1/runs/"+string(id)+"/signals/a%20b", `{}`)
	f.refused(400, "reserved_name", "POST", "/v1/runs/"+string(id)+"/signals/cancel", `{}`)
	f.refused(404, "run_not_found", "POST", "/v1/runs/x/signals/a", `{}`)
}

func TestADryRunStoresNothing(t *testing.T) {
	f := start(t)
	body, _ := json.Marshal(map[string]any{"source": hello, "dry_run": true})
	got := f.decoded("POST", "/v1/runs", string(body))
	plan := got["plan"].([]any)
	if len(plan) == 0 || plan[0].(map[string]any)["would_run"] != "yes" {
		t.Errorf("plan: %v", got)
	}
	if list := f.decoded("GET", "/v1/runs", ""); len(list["runs"].([]any)) != 0 {
		t.Errorf("a dry run left %v", list)
	}
	if _, err := f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: hello, DryRun: true}); err == nil {
		t.Error("CreateRun took dry_run")
	}
}

func TestFilesTravelWithASource(t *testing.T) {
	f := start(t)
	source := "imports: {part: lib/part.yaml}\nsteps:\n  - {id: a, call: part}\n"
	part := "steps:\n  - {id: b, set: {n: 1}}\n"
	send := func(files map[string]string) string {
		m := map[string]any{"source": source}
		enc := map[string]string{}
		for name, text := range files {
			enc[name] = base64.StdEncoding.EncodeToString([]byte(text))
		}
		m["files"] = enc
		b, _ := json.Marshal(m)
		return string(b)
	}
	f.refused(400, "invalid_pipeline", "POST", "/v1/runs", send(nil))
	f.refused(400, "invalid_path", "POST", "/v1/runs", send(map[string]string{"../part.yaml": part}))
	got := f.decoded("POST", "/v1/runs", send(map[string]string{"lib/part.yaml": part}))
	sub := f.engine.subs[len(f.engine.subs)-1]
	if diff := cmp.Diff(pipeline.Bundle{"lib/part.yaml": []byte(part)}, sub.Bundle); diff != "" || sub.Plan.Bundle != sub.Bundle.Digest() {
		t.Errorf("bundle: %s %s", diff, sub.Plan.Bundle)
	}
	if got["status"] != "RUNNING" {
		t.Errorf("run: %v", got)
	}
}

func TestFilesMayBeLargerThanTheRestOfARequest(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Request, c.Limits.Files = 4096, 64<<10 })
	send := func(n int) string {
		b, _ := json.Marshal(map[string]any{"source": hello, "files": map[string]string{
			"data.bin": base64.StdEncoding.EncodeToString(make([]byte, n)),
		}})
		return string(b)
	}
	f.decoded("POST", "/v1/runs", send(60<<10))
	f.refused(413, "files_too_large", "POST", "/v1/runs", send(65<<10))
	b, _ := json.Marshal(map[string]any{"source": hello + strings.Repeat("# \n", 4096)})
	f.refused(413, "request_too_large", "POST", "/v1/runs", string(b))
}

func TestOpenTagsRefuseARunAndUnknownAnswersToo(t *testing.T) {
	f := start(t)
	source := "steps:\n  - {id: a, set: {tone: <AUTO>Which tone?</AUTO>}}\n"
	send := func(answers map[string]any) string {
		b, _ := json.Marshal(map[string]any{"source": source, "answers": answers})
		return string(b)
	}
	refused := f.refused(400, "invalid_inputs", "POST", "/v1/runs", send(nil))
	if len(refused.Error.Details) != 1 || !strings.Contains(refused.Error.Details[0].Field, "a.") {
		t.Errorf("open tag: %+v", refused.Error)
	}
	key := refused.Error.Details[0].Field
	f.refused(400, "invalid_answers", "POST", "/v1/runs", send(map[string]any{key: "calm", "b.x": 1}))
	f.decoded("POST", "/v1/runs", send(map[string]any{key: "calm"}))
	if sub := f.engine.subs[len(f.engine.subs)-1]; sub.Answers[key] != "calm" {
		t.Errorf("answers: %v", sub.Answers)
	}
}

func TestArtifactsAreListedAndRead(t *testing.T) {
	f := start(t)
	id := f.create()
	blob, err := f.st.PutBlob(t.Context(), id, []byte("# Report\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(2) {
		f.engine.add(id, pipeline.Event{Type: pipeline.StepFinished, Path: pipeline.Path([]string{"a", "b"}[i]), Attempt: 1, Data: pipeline.Data{
			Kind: pipeline.KindCommand, Status: pipeline.StepCompleted,
			Published: []pipeline.Version{{Artifact: "report", Version: i + 1, Producer: "a", Value: "out/report.md", Blob: blob, Size: 9}},
		}})
	}
	list := f.decoded("GET", "/v1/artifacts?run_id="+string(id), "")
	if got := list["artifacts"].([]any); len(got) != 2 || got[1].(map[string]any)["version"] != 2.0 {
		t.Fatalf("list: %v", list)
	}
	got := f.decoded("GET", "/v1/artifacts/"+string(id)+"/report", "")
	content, err := base64.StdEncoding.DecodeString(got["content"].(string))
	if err != nil || string(content) != "# Report\n" || got["artifact"].(map[string]any)["version"] != 2.0 {
		t.Errorf("artifact: %v %v", got, err)
	}
	f.refused(404, "artifact_not_found", "GET", "/v1/artifacts/"+string(id)+"/report?version=3", "")
	f.refused(400, "required", "GET", "/v1/artifacts", "")
}
