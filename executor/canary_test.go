package executor_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const canary = `c4n4ry "s3cret" <&/+é`

// stored is every text that a store keeps of a run and shows of it.
func stored(t *testing.T, s store.Store, id pipeline.RunID) string {
	t.Helper()
	var b strings.Builder
	ctx := context.Background()
	run, err := s.Run(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%+v %+v\n", run, run.Error)
	var blobs []pipeline.Digest
	for ev, err := range s.Events(ctx, id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		b.Write(pipeline.AppendData(nil, &ev.Data))
		if ev.Data.Error != nil {
			b.WriteString(ev.Data.Error.Message)
		}
		for _, v := range ev.Data.Published {
			blobs = append(blobs, v.Blob)
		}
		b.WriteByte('\n')
	}
	logs := map[string]*strings.Builder{}
	for c, err := range s.Logs(ctx, store.LogQuery{Run: id}) {
		if err != nil {
			t.Fatal(err)
		}
		key := string(c.Path) + c.Stream
		if logs[key] == nil {
			logs[key] = &strings.Builder{}
		}
		logs[key].WriteString(c.Text) // pieces as their readers join them
	}
	for _, l := range logs {
		b.WriteString(l.String())
	}
	for _, d := range blobs {
		if d == "" {
			continue
		}
		data, err := s.Blob(ctx, id, d)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
	}
	page, err := s.Approvals(ctx, store.ApprovalQuery{Run: id, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range page.Approvals {
		fmt.Fprintf(&b, "%+v\n", a)
	}
	return b.String()
}

func TestSecretsDoNotComeToLight(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, "you sent "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	src := `
secrets: [KEY]
inputs: {url: string}
artifacts: {file: {type: path}, text: {type: string}}
agents: {echo: {command: [sh, -c, 'cat; printf "%s" "$KEY"']}}
steps:
- id: print
  secrets: [KEY]
  run: 'printf "%s\n" "$KEY"; printf "%s\n" "$KEY" >&2; printf "%s" "$KEY" | base64; printf "%s" "$KEY" | od -An -c >/dev/null'
- id: pieces
  secrets: [KEY]
  command: [python3, -c, "import os, sys, time\nfor c in os.environ['KEY']:\n    sys.stdout.write(c); sys.stdout.flush(); sys.stderr.write(c); sys.stderr.flush(); time.sleep(0.02)"]
- id: encoded
  secrets: [KEY]
  command: [python3, -c, "import os, json, base64, urllib.parse as u\nk = os.environ['KEY']\nprint(json.dumps({k: [k]}), json.dumps(k, ensure_ascii=False), u.quote(k), u.quote(k, safe=''), u.quote_plus(k), base64.b64encode(k.encode()).decode(), base64.urlsafe_b64encode(k.encode()).decode().rstrip('='))"]
- id: json
  secrets: [KEY]
  command: [python3, -c, "import os, json\nprint(json.dumps({os.environ['KEY']: [os.environ['KEY']]}))"]
  capture: json
- id: failing
  secrets: [KEY]
  run: 'i=0; while [ $i -lt 300 ]; do printf "%s" "$KEY"; i=$((i+1)); done >&2; exit 3'
  on_failure: continue
- id: environment
  run: 'printf "%s" "$TOKEN"'
  env: {TOKEN: 'Bearer {{ secrets.KEY }}'}
- id: wrong
  run: 'true'
  env: {TOKEN: '{{ secrets.KEY + 1 }}'}
  on_failure: continue
- id: get
  action: http
  with: {url: '{{ url }}/ok', headers: {Authorization: 'Basic {{ secrets.KEY | urlencode }}'}}
- id: refused
  action: http
  with: {url: '{{ url }}/fail', headers: {Authorization: '{{ secrets.KEY | urlencode }}'}}
  on_failure: continue
- id: give
  secrets: [KEY]
  command: [python3, -c, "import os, json\nk = os.environ['KEY']\nopen('f.txt', 'w').write('in a file ' + k)\nprint(json.dumps({'file': 'f.txt', 'text': 'it is ' + k, 'n': k}))"]
  returns: {file: {type: path, must_exist: true}, text: string, n: integer}
  on_failure: continue
- id: publish
  secrets: [KEY]
  command: [python3, -c, "import os, json\nk = os.environ['KEY']\nopen('f.txt', 'w').write('in a file ' + k)\nprint(json.dumps({'file': 'f.txt', 'text': 'it is ' + k}))"]
  returns: {file: {type: path, must_exist: true}, text: string}
  publish: [{artifact: file, from: file}, {artifact: text, from: text}]
  cache: true
- id: consume
  needs: publish
  run: 'printf "%s" "$ORCHESTRATOR_CONSUMED"; cat f.txt'
  consume: [{artifact: file, as: content}, {artifact: text}]
- id: agent
  agent: echo
  secrets: [KEY]
  prompt: 'Say {{ text_of }}'
  state: {said: '{{ agent }}'}
  needs: [consume, print]
- id: question
  ask: {question: 'Is it {{ print }}?', default: 'yes', deadline: 0.01}
vars: {text_of: nothing}
settings: {on_error: continue}
`
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, troubled, func(c *executor.Config) {
				c.Actions = step.All(step.Config{Transport: http.DefaultTransport})
				c.Secret = func(name string) (string, bool) { return canary, name == "KEY" }
			})
			id := e.submit(src, map[string]any{"url": server.URL})
			_, v := e.wait(id)
			for _, x := range v.Steps {
				want := pipeline.StepCompleted
				switch x.ID {
				case "failing", "wrong", "refused", "give":
					want = pipeline.StepFailed
				}
				if x.Status != want {
					t.Errorf("step %s: %s %+v", x.Path, x.Status, x.Error)
				}
			}
			all := stored(t, s, id)
			if strings.Count(all, "[secret KEY]") < 20 {
				t.Errorf("the secret was hardly used:\n%s", all)
			}
			escaped := strings.ReplaceAll(canary, `"`, `\"`)
			for _, form := range []string{
				canary, escaped, strings.ReplaceAll(escaped, "é", `\u00e9`), url.QueryEscape(canary), url.PathEscape(canary),
				base64.StdEncoding.EncodeToString([]byte(canary)), base64.RawURLEncoding.EncodeToString([]byte(canary)), "c4n4ry", "s3cret",
			} {
				if i := strings.Index(all, form); i >= 0 {
					t.Errorf("%q comes to light: ...%s...", form, all[max(i-200, 0):min(i+200, len(all))])
				}
			}
		})
	}
}
