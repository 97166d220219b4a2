package cassette

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/openai"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	serviceKey = "sk-the-service-key-0123456789"
	password   = "correct horse battery"
)

// theService plays a provider that speaks as OpenAI does: it answers with the number
// of the request, and fails the requests in broken.
type theService struct {
	*httptest.Server
	asked  atomic.Int32
	broken sync.Map // by number
}

func newService(t *testing.T) *theService {
	t.Helper()
	s := &theService{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		if _, ok := s.broken.Load(n); ok || r.Header.Get("Authorization") != "Bearer "+serviceKey {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-x-2026\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"answer %d for %s\"}}]}\n\n", n, password)
		fmt.Fprint(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-x-2026\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13}}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s
}

// recorder is a router with the model live and the cassette taped, which records it
// unless only is true.
func recorder(t *testing.T, s *theService, file string, only bool, key string) *model.Router {
	t.Helper()
	yaml := "models:\n  live: {provider: openai, model: gpt-x, base_url: " + s.URL + "/v1, key_env: THE_KEY, prices: [{input: 1000000, output: 0}]}\n  taped: {provider: cassette, file: " + file
	if !only {
		yaml += ", record: live"
	}
	g, faults := model.ReadRegistry(filepath.Join(t.TempDir(), "models.yaml"), []byte(yaml+"}\n"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return model.NewRouter(model.Config{
		Registry: g, Logger: slog.New(slog.DiscardHandler), Retry: model.Retry{First: 1},
		Env: func(name string) (string, bool) { return key, name == "THE_KEY" && key != "" },
		Open: func(at model.Endpoint) (model.Provider, error) {
			if at.Provider == model.ProviderCassette {
				return Open(at.File, at.Records, func() []string { return []string{password} })
			}
			return openai.New(openai.Config{Name: at.Provider, BaseURL: at.BaseURL, Key: func() string { return at.Key }, Client: s.Client()}), nil
		},
	})
}

// journaled is an attempt whose events are kept.
func journaled() (executor.Env, *[]pipeline.Event) {
	var mu sync.Mutex
	events := &[]pipeline.Event{}
	return executor.Env{Run: "run", Path: "write", Journal: executor.NewJournal(nil, func(_ context.Context, _ []*pipeline.Approval, list []pipeline.Event) error {
		mu.Lock()
		defer mu.Unlock()
		*events = append(*events, list...)
		return nil
	})}, events
}

func question(texts ...string) *model.Request {
	r := &model.Request{Model: "taped", Step: "write", Phase: model.PhaseAnswer}
	for i, text := range texts {
		if i%2 == 0 {
			r.Messages = append(r.Messages, model.UserText(text))
		} else {
			r.Messages = append(r.Messages, model.AssistantText(text))
		}
	}
	return r
}

func TestACassetteRecordsWhatItDoesNotHold(t *testing.T) {
	s := newService(t)
	file := filepath.Join(t.TempDir(), "sub", "new.cassette.yaml")
	env, events := journaled()
	first, err := recorder(t, s, file, false, serviceKey).Ask(t.Context(), env, question("the key is "+serviceKey+" and "+password))
	if err != nil || !strings.HasPrefix(first.Text(), "answer 1") || first.Usage.CostUSD != 10 {
		t.Fatalf("%+v, %v", first, err)
	}
	call := (*events)[0].Data.Call
	if c, _ := call.Choice.(map[string]any); c["recorded"] != "live" || call.Provider != "openai" || (*events)[0].Data.Model != "gpt-x-2026" {
		t.Errorf("recorded as %+v", call)
	}
	second := question("the key is "+serviceKey+" and "+password, first.Text(), "go on")
	if _, err := recorder(t, s, file, false, serviceKey).Ask(t.Context(), executor.Env{}, second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), serviceKey) || strings.Contains(string(text), password) {
		t.Fatalf("%v:\n%s", err, text)
	}
	if !strings.Contains(string(text), "continues: 1") || strings.Count(string(text), "the key is *** and ***") != 1 {
		t.Errorf("the second request does not continue the first:\n%s", text)
	}
	s.Close() // what is held is answered without the service, by whoever has the file, with the key and without
	for _, only := range []bool{false, true} {
		for i, q := range []*model.Request{question("the key is " + serviceKey + " and " + password), second} {
			a, err := recorder(t, s, file, only, "").Ask(t.Context(), executor.Env{}, q)
			if err != nil || !strings.HasPrefix(a.Text(), fmt.Sprintf("answer %d", i+1)) || a.Model != "gpt-x-2026" {
				t.Errorf("request %d: %+v, %v", i, a, err)
			}
		}
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("the service was asked %d times", n)
	}
	for want, only := range map[string]bool{"recorded: user: go on": true, "live, which it records, cannot be asked: there is no key": false} {
		_, err := recorder(t, s, file, only, "").Ask(t.Context(), executor.Env{}, question("the key is "+serviceKey+" and "+password, first.Text(), "stop"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), serviceKey) || strings.Contains(err.Error(), password) {
			t.Errorf("missed: %v", err)
		}
	}
}

func TestFailuresOfTheServiceAreNotRecorded(t *testing.T) {
	s := newService(t)
	s.broken.Store(int32(1), true)
	file := filepath.Join(t.TempDir(), "new.cassette.yaml")
	a, err := recorder(t, s, file, false, serviceKey).Ask(t.Context(), executor.Env{}, question("hello"))
	if err != nil || a.Tries != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	p, err := Open(file, false, nil)
	if err != nil || len(p.list) != 1 || !strings.HasPrefix(p.list[0].Answer.Text(), "answer 2") {
		t.Errorf("%v, %v", p, err)
	}
}

func TestAnAnswerThatCannotBeRecordedIsNotLost(t *testing.T) {
	s := newService(t)
	env, events := journaled()
	file := filepath.Join(t.TempDir(), "a.cassette.yaml")
	r := recorder(t, s, file, false, serviceKey)
	if _, err := r.Ask(t.Context(), env, question("one")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("recordings: {"), 0o600); err != nil { // somebody edits it
		t.Fatal(err)
	}
	a, err := r.Ask(t.Context(), env, question("two"))
	if err != nil || !strings.HasPrefix(a.Text(), "answer 2") {
		t.Fatalf("%+v, %v", a, err)
	}
	if c, _ := (*events)[1].Data.Call.Choice.(map[string]any); !strings.Contains(fmt.Sprint(c["unrecorded"]), "a.cassette.yaml") {
		t.Errorf("chosen %v", c)
	}
}

func TestManyRecordAtOnce(t *testing.T) {
	s := newService(t)
	file := filepath.Join(t.TempDir(), "new.cassette.yaml")
	r := recorder(t, s, file, false, serviceKey)
	var g errgroup.Group
	for i := range 20 {
		g.Go(func() error {
			_, err := r.Ask(t.Context(), executor.Env{}, question(fmt.Sprintf("question %d", i)))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(file, false, nil)
	if err != nil || len(p.list) != 20 {
		t.Fatalf("%d recordings, %v", len(p.list), err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 2 { // and its lock
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

func TestFilesOfARunAreKnownByTheirDigests(t *testing.T) {
	file := func(data []byte) *model.Request {
		return &model.Request{Messages: []model.Message{{Role: model.User, Blocks: []model.Block{
			{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{ID: "1", Name: "look", Content: []model.Block{
				{Kind: model.BlockImage, Media: &model.Media{Type: "image/png", Blob: "sha256:1", Data: data}},
			}}},
		}}}}
	}
	if with, without := KeyOf(file([]byte("png"))), KeyOf(file(nil)); with != without {
		t.Errorf("%s as it is sent, %s as it is recorded", with, without)
	}
}
