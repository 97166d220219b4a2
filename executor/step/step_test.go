package step

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STEP_TEST_SERVER"); dir != "" {
		serve(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// boxes are the sandboxes of the tests: the real one, without bounds.
var boxes = &sandbox.Set{Drivers: []sandbox.Driver{&process.Driver{}}}

// host is a server whose configuration lets programs run bare.
var host = Config{Sandbox: &sandbox.Set{Drivers: []sandbox.Driver{sandbox.Host{}}}}

// sandboxHere skips where this machine has no bubblewrap, or does not let it work.
func sandboxHere(t *testing.T) {
	t.Helper()
	if _, _, err := boxes.Pick(t.Context(), sandbox.Process); err != nil {
		t.Skip(err)
	}
}

// journal keeps what a step logs.
type journal struct {
	mu    sync.Mutex
	lines []string
	seen  chan string // gets every piece, where it is not nil
}

func (j *journal) log(stream, text string) {
	j.mu.Lock()
	j.lines = append(j.lines, stream+": "+text)
	j.mu.Unlock()
	if j.seen != nil {
		j.seen <- text
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "")
}

// testEnv is the first attempt of a step in a fresh workspace.
func testEnv(t *testing.T) (executor.Env, *journal) {
	t.Helper()
	j := &journal{}
	return executor.Env{
		Run: "0190c0de-0000-7000-8000-000000000001", Path: "step", Attempt: 1, Workspace: t.TempDir(),
		Environ: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}, Log: j.log,
	}, j
}

func find(t *testing.T, cfg Config, key string) executor.Action {
	t.Helper()
	for _, a := range All(cfg) {
		if a.Spec.Key == key {
			return a
		}
	}
	t.Fatalf("there is no action %s", key)
	return executor.Action{}
}

// params is a value of the language: what is spelled as Go int is int64 there.
type params = map[string]any

func run(t *testing.T, cfg Config, env executor.Env, key string, p params) (any, error) {
	t.Helper()
	r, err := find(t, cfg, key).Bind(language(t, p))
	if err != nil {
		return nil, err
	}
	out, err := r.Run(t.Context(), env)
	return out.Value, err
}

// language brings literals of a test into the values that the engine hands over.
func language(t *testing.T, p params) params {
	t.Helper()
	v, err := pipeline.DecodeValue(pipeline.EncodeValue(p))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := v.(params)
	return m
}

// same compares values as JSON.
func same(t *testing.T, got, want any) {
	t.Helper()
	g, w := string(pipeline.EncodeValue(got)), string(pipeline.EncodeValue(want))
	if g != w {
		t.Errorf("got  %.2000s\nwant %.2000s", g, w)
	}
}

// failed checks a failure's category and text.
func failed(t *testing.T, err error, category, text string) *pipeline.Failure {
	t.Helper()
	var f *pipeline.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v; want a failure %s with %q", err, category, text)
	}
	if f.Kind != category || !strings.Contains(f.Message, text) {
		t.Errorf("got failure %s: %.1000s\nwant %s with %q", f.Kind, f.Message, category, text)
	}
	return f
}

func field(t *testing.T, v any, name string) any {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("the output is %T, not a map", v)
	}
	return m[name]
}

func TestActionsAreDocumentedAndNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range append(All(Config{}), Command(Config{})) {
		s := a.Spec
		if seen[s.Key] {
			t.Errorf("%s stands in the list twice", s.Key)
		}
		seen[s.Key] = true
		if len(s.Doc) < 40 || !strings.HasSuffix(strings.SplitN(s.Doc, "\n", 2)[0], ".") {
			t.Errorf("%s: its manual begins %q", s.Key, head(s.Doc, 60))
		}
		if s.Effect == "" && a.Effect == nil {
			t.Errorf("%s has no effect", s.Key)
		}
		for _, list := range [][]pipeline.Property{s.Params, s.Returns.Properties} {
			for _, p := range list {
				if p.Doc == "" {
					t.Errorf("%s: %s has no doc", s.Key, p.Name)
				}
			}
		}
	}
}

func TestOutputsHaveTheFieldsTheyPromise(t *testing.T) {
	rows := []any{params{"a": 1}}
	for key, p := range map[string]params{
		"load_data":         {"source": "a\n1\n"},
		"data.filter":       {"data": rows, "where": params{"a": 1}},
		"data.aggregate":    {"data": rows, "metrics": params{"n": params{"op": "count"}}},
		"filesystem.write":  {"path": "x", "content": "x"},
		"filesystem.append": {"path": "x", "content": "x"},
		"filesystem.list":   {},
	} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, key, p)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		m, _ := v.(map[string]any)
		props := find(t, Config{}, key).Spec.Returns.Properties
		for _, p := range props {
			if _, ok := m[p.Name]; !ok {
				t.Errorf("%s does not give %s", key, p.Name)
			}
		}
		if len(m) != len(props) {
			t.Errorf("%s gives %d fields and promises %d", key, len(m), len(props))
		}
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		in   any
		want time.Duration
	}{
		{nil, 0},
		{int64(2), 2 * time.Second},
		{1.5, 1500 * time.Millisecond},
		{"90s", 90 * time.Second},
		{"1h30m", 90 * time.Minute},
		{"2d", 48 * time.Hour},
		{"1d12h", 36 * time.Hour},
		{" 3 ", 3 * time.Second},
		{"0", 0},
		{"0d", 0},
	} {
		if got, err := duration("d", c.in); err != nil || got != c.want {
			t.Errorf("%v: got %v, %v", c.in, got, err)
		}
	}
	for _, bad := range []any{"soon", "-1s", int64(-1), math.NaN(), math.Inf(1), true, "", "d", "-2d", "1e300", "9999999d", "NaN"} {
		if got, err := duration("d", bad); err == nil {
			t.Errorf("%v: got %v, want an error", bad, got)
		}
	}
}

func TestDebug(t *testing.T) {
	env, j := testEnv(t)
	v, err := run(t, Config{}, env, "debug", params{"message": "hello", "value": []any{1, 2.0}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, []any{1, 2.0})
	if got := j.String(); got != "stdout: hello\nstdout: [1,2.0]\n" {
		t.Errorf("log: %q", got)
	}
	v, err = run(t, Config{}, env, "debug", params{"message": "hello"})
	if v != "hello" || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	v, err = run(t, Config{}, env, "debug", params{"value": false, "fail": "no luck", "category": "system"})
	failed(t, err, pipeline.CategorySystem, "no luck")
	same(t, v, false)
	if _, err = run(t, Config{}, env, "debug", params{"fail": false}); err != nil {
		t.Error(err)
	}
	_, err = run(t, Config{}, env, "debug", params{"category": "bad luck"})
	failed(t, err, pipeline.CategoryValidation, "it can be failed, rate_limit")
}

func TestDebugFailsTheFirstAttempts(t *testing.T) {
	env, _ := testEnv(t)
	for env.Attempt = 1; env.Attempt <= 3; env.Attempt++ {
		_, err := run(t, Config{}, env, "debug", params{"fail_attempts": 2})
		if (err != nil) != (env.Attempt <= 2) {
			t.Errorf("attempt %d: %v", env.Attempt, err)
		}
	}
}

func TestDebugTakesItsTimeButNotAfterCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := executor.Env{Attempt: 1, Log: func(string, string) {}}
		began := time.Now()
		if _, err := (Debug{Delay: "90s"}).Run(t.Context(), env); err != nil || time.Since(began) != 90*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := (Debug{Delay: "90s"}).Run(ctx, env)
		failed(t, err, pipeline.CategoryTimeout, "out of time")
		ctx, stop := context.WithCancel(t.Context())
		stop()
		_, err = (Debug{Delay: "90s"}).Run(ctx, env)
		failed(t, err, pipeline.CategoryCancelled, "cancelled")
	})
}

func TestEndedTakesTheGivenCause(t *testing.T) {
	cause := pipeline.Failuref(pipeline.CategoryTimeout, "the run has taken longer than 1h")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if f := ended(ctx); f == cause || *f != *cause {
		t.Errorf("got %v", f)
	}
}
