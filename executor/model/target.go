package model

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// target is a model that a request may be sent to.
type target struct {
	*Entry
	alias    *pipeline.ModelAlias // under which a pipeline names it; nil: none
	name     string               // by which it was found
	endpoint Endpoint
	record   *target // of a cassette: the model whose answers it records; nil: it only answers
	served   string  // by which name its server knows it; empty: by its own
	missing  string  // why it cannot be asked; empty: it can
	score    float64
	reason   string // why it was chosen, or passed over
}

// id names the model to breakers, rates and statistics.
func (t *target) id() string {
	if own := t.own(); own != "" {
		return t.Provider + "/" + own
	}
	return t.Provider // a script, asked for no model by name
}

// fallback are the models to ask in its stead.
func (t *target) fallback() []string {
	if t.alias != nil && len(t.alias.Fallback) > 0 {
		return t.alias.Fallback
	}
	return t.Entry.Fallback
}

// keyVars are where the keys of services are looked for.
var keyVars = map[string][]string{
	ProviderAnthropic: {"ANTHROPIC_API_KEY"},
	ProviderOpenAI:    {"OPENAI_API_KEY"},
	ProviderGoogle:    {"GEMINI_API_KEY", "GOOGLE_API_KEY"},
}

// find finds a model by its name: the pipeline's own, then the registry's, then
// the built-in ones.
func (r *Router) find(env executor.Env, name string) (*target, *pipeline.Failure) {
	if env.Unit != nil {
		if a := env.Unit.Model(name); a != nil {
			return r.aliased(env, a)
		}
	}
	if e := r.cfg.Registry.Entry(name); e != nil {
		return r.registered(env, e), nil
	}
	for _, e := range builtIn {
		if e.Name == name {
			return r.registered(env, e), nil
		}
	}
	names := r.cfg.Registry.Names()
	if env.Unit != nil {
		for i := range env.Unit.Models {
			names = append(names, env.Unit.Models[i].Name)
		}
	}
	hint := ""
	if s := expr.Suggest(name, names); s != "" {
		hint = fmt.Sprintf("; did you mean %s?", s)
	}
	f := pipeline.Failuref(pipeline.CategoryValidation,
		"there is no model %s%s; orchestrator models list shows those that there are", name, hint)
	f.Reason = "model_unknown"
	return nil, f
}

// registered is a model of the registry.
func (r *Router) registered(env executor.Env, e *Entry) *target {
	t := &target{Entry: e, name: e.Name, endpoint: Endpoint{Provider: e.Provider, BaseURL: e.BaseURL, API: e.API, File: e.File}}
	if e.Provider == ProviderLocal && e.BaseURL == "" {
		t.endpoint.BaseURL = r.cfg.LocalURL
	}
	vars := keyVars[e.Provider]
	if e.KeyEnv != "" {
		vars = []string{e.KeyEnv}
	} else if e.BaseURL != "" {
		vars = nil
	}
	t.keyFrom(vars, r.cfg.Env, env.Secret)
	if e.Record != "" {
		t.endpoint.Records = true
		if from := r.cfg.Registry.Entry(e.Record); from != nil {
			t.record = r.registered(env, from)
		} else if i := slices.IndexFunc(builtIn, func(b *Entry) bool { return b.Name == e.Record }); i >= 0 {
			t.record = r.registered(env, builtIn[i])
		}
	}
	return t
}

// aliased is a model that a pipeline names itself.
func (r *Router) aliased(env executor.Env, a *pipeline.ModelAlias) (*target, *pipeline.Failure) {
	own := a.Model
	if own == "" {
		own = a.Name
	}
	var t *target
	if a.Provider == "" {
		e := r.cfg.Registry.Entry(own)
		if e == nil {
			for _, b := range builtIn {
				if b.Name == own {
					e = b
				}
			}
		}
		if e == nil {
			f := pipeline.Failuref(pipeline.CategoryValidation,
				"the model %s (line %d) stands for %s, which the registry does not have; say its provider", a.Name, a.Pos.Line, own)
			f.Reason = "model_unknown"
			return nil, f
		}
		t = r.registered(env, e)
	} else {
		e := r.cfg.Registry.known(a.Provider, own)
		if e == nil {
			e = &Entry{Name: own, Provider: a.Provider, Capabilities: Capabilities{Tools: &truth}}
		}
		t = &target{Entry: e, endpoint: Endpoint{Provider: a.Provider}}
		if a.Provider == ProviderLocal {
			t.endpoint.BaseURL = r.cfg.LocalURL
		}
		if a.BaseURL == "" && a.Key == "" {
			t.keyFrom(keyVars[a.Provider], r.cfg.Env, env.Secret)
		}
	}
	t.alias, t.name = a, a.Name
	if a.BaseURL != "" { // no key of the server's goes there
		t.endpoint.BaseURL, t.endpoint.Key, t.missing = a.BaseURL, "", ""
	}
	if a.API != "" {
		t.endpoint.API = a.API
	}
	if a.Key != "" {
		t.missing = ""
		t.keyFrom([]string{a.Key}, nil, env.Secret)
	}
	if a.File != "" {
		if !filepath.IsLocal(filepath.FromSlash(a.File)) || env.Bundle == "" {
			t.missing = fmt.Sprintf("its file %s does not travel with the pipeline", a.File)
		}
		t.endpoint.File = filepath.Join(env.Bundle, filepath.FromSlash(a.File))
	}
	return t, nil
}

// keyFrom looks for the key; without any variable, none is sent.
func (t *target) keyFrom(vars []string, env, secret func(string) (string, bool)) {
	for _, from := range []func(string) (string, bool){env, secret} {
		if from == nil {
			continue
		}
		for _, name := range vars {
			if v, ok := from(name); ok && v != "" {
				t.endpoint.Key = v
				return
			}
		}
	}
	if len(vars) > 0 {
		t.missing = noKey + strings.Join(vars, " or ")
	}
}

const noKey = "there is no key: set "
