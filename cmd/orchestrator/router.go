package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/anthropic"
	"github.com/orchestrator-project/orchestrator/executor/model/budget"
	"github.com/orchestrator-project/orchestrator/executor/model/google"
	"github.com/orchestrator-project/orchestrator/executor/model/openai"
	"github.com/orchestrator-project/orchestrator/executor/model/rate"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// registry reads the models that the settings name, else the models.yaml of the
// home, which may be missing.
func (c *config) registry(home string) (*model.Registry, error) {
	path := c.Models.RegistryPath
	if path == "" {
		path = filepath.Join(home, "models.yaml")
	}
	text, err := os.ReadFile(path) //nolint:gosec // the file that the operator named
	switch {
	case os.IsNotExist(err) && c.Models.RegistryPath == "":
		return model.BuiltIn(), nil
	case err != nil:
		return nil, &failure{
			code: exitInvalid, what: "cannot read the registry of models " + path, why: cause(err),
			fix: []string{"correct models.registry_path"},
		}
	}
	g, faults := model.ReadRegistry(path, text)
	if len(faults) == 0 && g.Policies[c.Models.SelectionPolicy].Strategy == "" {
		faults = append(faults, fmt.Sprintf("%s: there is no selection policy %s, which models.selection_policy names", path, c.Models.SelectionPolicy))
	}
	if len(faults) > 0 {
		return nil, &failure{
			code: exitInvalid, what: "the registry of models is not valid", why: strings.Join(faults, "\n"),
			fix: []string{"orchestrator models --help describes the file"},
		}
	}
	return g, nil
}

// openProvider makes the provider of an endpoint.
func openProvider(at model.Endpoint) (model.Provider, error) {
	key := func() string { return at.Key }
	switch at.Provider {
	case model.ProviderAnthropic:
		return anthropic.New(anthropic.Config{BaseURL: at.BaseURL, Key: key, Client: modelClient}), nil
	case model.ProviderOpenAI, model.ProviderLocal:
		return openai.New(openai.Config{Name: at.Provider, BaseURL: at.BaseURL, Key: key, API: at.API, Client: modelClient}), nil
	case model.ProviderGoogle:
		return google.New(google.Config{BaseURL: at.BaseURL, Key: key, Client: modelClient}), nil
	case model.ProviderScript:
		if at.File != "" {
			return provider(at.File)
		}
		return nil, errors.New("a scripted model needs a file")
	case model.ProviderCassette:
		if at.File != "" {
			return recordings(at.File, at.Records)
		}
		return nil, errors.New("a model that answers from a cassette needs its file")
	}
	return nil, fmt.Errorf("this server has no provider %s", at.Provider)
}

// modelClient carries all calls of models, so that they share connections.
var modelClient = &http.Client{Transport: placed{modelTransport()}}

func modelTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	own := t.Clone()
	own.MaxIdleConnsPerHost = 100 // many agents ask the same service
	return own
}

// router joins the models with the store. What answers from a script needs no
// registry.
func (h *house) router(p plan) (*model.Router, *model.Registry, error) {
	scripted, err := provider(p.cfg.Models.Script)
	if err == nil && scripted == nil && p.cfg.Models.Cassette != "" {
		scripted, err = recordings(p.cfg.Models.Cassette, false)
	}
	if err != nil {
		return nil, nil, err
	}
	g, err := p.cfg.registry(p.home)
	if err != nil {
		return nil, nil, err
	}
	cfg := model.Config{
		Registry: g, Open: openProvider, Scripted: scripted, Env: p.env, Secret: p.secret, Policy: p.cfg.Models.SelectionPolicy,
		LocalURL: p.cfg.Models.LocalURL, LocalPath: p.cfg.Models.LocalModelsPath, NoFallback: !p.cfg.Models.FallbackEnabled, Logger: p.log, Metrics: h.metrics,
	}
	if !p.bare {
		cfg.Stats, cfg.Blob = h.store, h.store.Blob
		b := p.cfg.Budgets
		h.budgets = budget.New(budget.Config{
			Run: b.Run.bound(), Pipeline: b.Pipeline.bound(), Workspace: b.Workspace.bound(), Day: b.Day.bound(),
			Store: h.store, Replica: string(pipeline.NewRunID()), Logger: p.log,
		})
		cfg.Purse = h.budgets
		if scripted == nil {
			cfg.Limiter = rate.New(h.store)
		}
	}
	return model.NewRouter(cfg), g, nil
}

// checkedModels are the names that the compiler holds pipelines against. Without a
// file, or where a script answers for all of them, any name will do.
func checkedModels(cfg *config, g *model.Registry) []pipeline.ModelSpec {
	if cfg.Models.Script != "" || cfg.Models.Cassette != "" || g.BuiltIn {
		return nil
	}
	return append(g.Specs(), model.BuiltIn().Specs()...)
}

// checkModels tells doctor's reader which models can be asked.
func (c *cli) checkModels(ctx context.Context, cfg *config, ok func(name, format string, args ...any), bad func(status, name, fix, format string, args ...any)) {
	g, err := cfg.registry(c.home())
	var f *failure
	switch {
	case errors.As(err, &f):
		bad("error", "models", "correct the file", "%s\n%s", f.what, f.why)
		return
	case cfg.Models.Script != "" || cfg.Models.Cassette != "":
		return // they answer for all models
	}
	if dir := cfg.Models.LocalModelsPath; dir != "" {
		if _, err := os.ReadDir(dir); err != nil {
			bad("warning", "models", "correct models.local_models_path", "the folder of local models cannot be read: %v", err)
		}
	}
	r := model.NewRouter(model.Config{Registry: g, Open: openProvider, Env: c.env, Secret: executor.EnvSecret, LocalURL: cfg.Models.LocalURL, LocalPath: cfg.Models.LocalModelsPath, Logger: slog.New(slog.DiscardHandler)})
	all, err := r.Models(ctx)
	if err != nil {
		bad("error", "models", "", "%v", err)
		return
	}
	var ready, away []string
	for i := range all.List {
		if m := &all.List[i]; m.Available {
			ready = append(ready, m.Name)
		} else {
			away = append(away, m.Name+": "+m.Reason)
		}
	}
	switch {
	case len(ready) == 0 && all.BuiltIn:
		bad("warning", "models", "set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY, or name a model of your own in models.yaml", "none can be asked: there is no key")
	case len(ready) == 0:
		bad("warning", "models", "orchestrator models list says why", "none can be asked")
	case len(away) > 0 && !all.BuiltIn:
		bad("warning", "models", "", "%s can be asked; not %s", strings.Join(ready, ", "), strings.Join(away, "; "))
	default:
		ok("models", "%s", strings.Join(ready, ", "))
	}
}
