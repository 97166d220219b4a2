package model

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// serving is a Router whose local server has the models of the given ids; down: it
// does not answer.
func serving(t *testing.T, folder string, down bool, ids ...string) (*Router, *service) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		list := []any{}
		for _, id := range ids {
			list = append(list, map[string]any{"id": id})
		}
		_, _ = w.Write(pipeline.EncodeValue(map[string]any{"data": list}))
	}))
	t.Cleanup(srv.Close)
	if down {
		srv.Close()
	}
	s := &service{f: echo}
	return NewRouter(Config{
		Registry: &Registry{Entries: []*Entry{{Name: "small", Provider: ProviderLocal, Model: "llama2-7b"}}, Policies: policies()},
		LocalURL: srv.URL, LocalPath: folder, Host: &Host{MemoryGB: 64, Cores: 8}, Logger: slog.New(slog.DiscardHandler),
		Open: func(Endpoint) (Provider, error) {
			return Func(func(ctx context.Context, r *Request) (*Response, error) {
				st, err := s.Call(ctx, r)
				if err != nil {
					return nil, err
				}
				return Drain(st, nil)
			}), nil
		},
	}), s
}

func TestServersThatCallModelsByTheirFilesAreUnderstood(t *testing.T) {
	folder := t.TempDir()
	for id, served := range map[string]bool{
		"llama2-7b": true, "llama2-7b:latest": true,
		filepath.Join(folder, "llama2-7b"):              true,
		filepath.Join(folder, "llama2-7b.gguf"):         true,
		filepath.Join(folder, "meta", "llama2-7b.gguf"): true,

		"llama2-7b.gguf":                         true,
		"/elsewhere/llama2-7b.gguf":              false,
		filepath.Join(folder, "llama2-70b.gguf"): false,
		folder + "-old/llama2-7b":                false,
	} {
		r, s := serving(t, folder, false, "other", id)
		_, err := r.Ask(t.Context(), (&book{}).attempt(), ask("hello"))
		if served != (err == nil) {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if served && s.asked[0].Model != id {
			t.Errorf("%s is asked as %s", id, s.asked[0].Model)
		}
	}
}

func TestFilesOfModelsThatNobodyServesAreNamed(t *testing.T) {
	folder := t.TempDir()
	why := func(down bool) string {
		r, _ := serving(t, folder, down, "other")
		_, err := r.Ask(t.Context(), (&book{}).attempt(), ask("hello"))
		if err == nil {
			t.Fatal("it has answered")
		}
		return err.Error()
	}
	if got := why(false); !strings.Contains(got, "does not have it, and "+folder+" has no llama2-7b or llama2-7b.gguf") {
		t.Error(got)
	}
	path := filepath.Join(folder, "llama2-7b.gguf")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := why(true); !strings.Contains(got, "does not answer, and its files are there: let a server serve "+path) {
		t.Error(got)
	}
}

func TestOnlyServersWithoutAKeyAreFree(t *testing.T) {
	for _, c := range []struct {
		at   Endpoint
		free bool
	}{
		{Endpoint{Provider: ProviderScript}, true},
		{Endpoint{Provider: ProviderCassette}, true},
		{Endpoint{Provider: ProviderLocal, BaseURL: "http://10.0.0.7/v1"}, true},
		{Endpoint{Provider: ProviderLocal, BaseURL: "https://openrouter.ai/api/v1", Key: "k"}, false},
		{Endpoint{Provider: ProviderOpenAI}, false},
	} {
		e := &target{Entry: &Entry{Name: "m", Provider: c.at.Provider}, endpoint: c.at}
		call := &call{asked: ask("hello"), choice: map[string]any{}}
		u := call.usage(e, &Response{Usage: &pipeline.Usage{InputTokens: 10, OutputTokens: 1}})
		if (u.Unpriced == 0) != c.free || u.CostUSD != 0 {
			t.Errorf("%+v: %+v", c.at, u)
		}
	}
}

func TestCoresAreThoseOfTheContainer(t *testing.T) {
	for text, want := range map[string]int64{"max 100000\n": math.MaxInt64, "50000 100000\n": 1, "250000 100000\n": 3, "400000 100000": 4, "": math.MaxInt64} {
		if got := coresOf(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
