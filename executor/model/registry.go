package model

import (
	"maps"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Registry is the models that a server knows, and how one of them is chosen. It
// is not changed once it is made.
type Registry struct {
	Entries  []*Entry // in the order of the file
	Policies map[string]SelectionPolicy
	// BuiltIn: no file names the models.
	BuiltIn bool
}

// Entry is a model of the registry, as models.yaml describes it. Zero members are
// not known.
type Entry struct {
	Name         string       `key:"-"`
	Provider     string       `key:"provider" values:"anthropic,openai,google,local,script,cassette"`
	Model        string       `key:"model"`    // the provider's own name for it; default: Name
	BaseURL      string       `key:"base_url"` // of openai and local
	API          string       `key:"api" values:"chat,responses"`
	KeyEnv       string       `key:"key_env"` // the variable or secret that holds the key; default: the provider's
	File         string       `key:"file"`    // of script and cassette; relative to the registry's folder
	Record       string       `key:"record"`  // of cassette: the model that is asked what File does not hold, and whose answers are added to it
	Capabilities Capabilities `key:"capabilities"`
	Requirements Requirements `key:"requirements"`
	Metrics      Metrics      `key:"metrics"`
	Prices       []Price      `key:"prices"`
	Limits       Limits       `key:"limits"`       // that the service sets
	Fallback     []string     `key:"fallback"`     // models that are asked in its stead where it fails
	BaseModel    string       `key:"base_model"`   // of a quantized version
	Quantization string       `key:"quantization"` // as in int4
}

// Capabilities are what a model can do.
type Capabilities struct {
	Tasks         []string `key:"tasks"`
	ContextWindow int64    `key:"context_window"` // tokens
	MaxOutput     int64    `key:"max_output"`     // tokens
	Tools         *bool    `key:"supports_function_calling"`
	Structured    *bool    `key:"supports_structured_output"`
	Streaming     *bool    `key:"supports_streaming"` // default true
	Languages     []string `key:"languages"`
	Expertise     string   `key:"expertise" values:"low,medium,high,very-high"`
	Size          string   `key:"size"` // parameters, as in 7B
}

// Requirements are what a local model takes of the machine.
type Requirements struct {
	MemoryGB    float64  `key:"memory_gb"`
	GPUMemoryGB float64  `key:"gpu_memory_gb"`
	CPUCores    int64    `key:"cpu_cores"`
	Quantized   []string `key:"supports_quantization"`
}

// Metrics are what is known of a model's work before it was ever asked.
type Metrics struct {
	LatencyP50   float64  `key:"latency_p50"` // seconds
	LatencyP95   float64  `key:"latency_p95"`
	Throughput   float64  `key:"throughput"`     // requests a second
	Accuracy     float64  `key:"accuracy"`       // from 0 to 1
	CostPerToken *float64 `key:"cost_per_token"` // USD, in and out alike; prices go first
}

// Price is what a model costs from a day on, in USD for a million tokens.
type Price struct {
	From       time.Time `key:"from"` // a day; zero: ever since
	Input      float64   `key:"input"`
	Output     float64   `key:"output"`
	Cached     *float64  `key:"cached_input"` // default: as Input
	CacheWrite *float64  `key:"cache_write"`  // default: as Input
}

// Limits are the rates that a service allows to a key; zero: no limit.
type Limits struct {
	RequestsPerMinute int64 `key:"requests_per_minute"`
	TokensPerMinute   int64 `key:"tokens_per_minute"` // in and out
}

// limits are those of the key that a model is asked with: the strictest of all
// models behind it.
func (g *Registry) limits(of *Entry) Limits {
	l := of.Limits
	for _, e := range g.Entries {
		if e.Provider == of.Provider && e.BaseURL == of.BaseURL && e.KeyEnv == of.KeyEnv {
			l.RequestsPerMinute = stricter(l.RequestsPerMinute, e.Limits.RequestsPerMinute)
			l.TokensPerMinute = stricter(l.TokensPerMinute, e.Limits.TokensPerMinute)
		}
	}
	return l
}

// stricter is the smaller of two limits; zero is none.
func stricter(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// SelectionPolicy says how one of several models is chosen.
type SelectionPolicy struct {
	Strategy    string   `key:"strategy" values:"ucb,weighted"`
	Exploration *float64 `key:"exploration_factor"` // of ucb; default 2
	Weights     Weights  `key:"weights"`            // of weighted
}

// Weights of a weighted policy.
type Weights struct {
	Cost     float64 `key:"cost"`
	Accuracy float64 `key:"accuracy"`
	Latency  float64 `key:"latency"`
}

// The strategies of selection, and the policy that is used where none is named.
const (
	StrategyUCB      = "ucb"
	StrategyWeighted = "weighted"
	DefaultPolicy    = "default"

	defaultExploration = 2.0
)

// Entry finds a model by its name; nil: there is none.
func (g *Registry) Entry(name string) *Entry {
	for _, e := range g.Entries {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// known finds what is known of a provider's model, also of one that the file does
// not name; nil: nothing is.
func (g *Registry) known(provider, model string) *Entry {
	for _, list := range [][]*Entry{g.Entries, builtIn} {
		for _, e := range list {
			if e.Provider == provider && e.own() == model {
				return e
			}
		}
	}
	return nil
}

// Window is how many tokens the model of that name takes in: one of the unit's own,
// or of the registry. 0: unknown. u may be nil.
func (g *Registry) Window(u *pipeline.Unit, name string) int64 {
	if u != nil {
		if own := u.Model(name); own != nil && own.Model != "" {
			name = own.Model
		}
	}
	if e := g.Entry(name); e != nil {
		return e.Capabilities.ContextWindow
	}
	return 0
}

// Specs are the models as the compiler sees them.
func (g *Registry) Specs() []pipeline.ModelSpec {
	list := make([]pipeline.ModelSpec, len(g.Entries))
	for i, e := range g.Entries {
		list[i] = e.Spec()
	}
	return list
}

// Names of the models, sorted.
func (g *Registry) Names() []string {
	names := map[string]bool{}
	for _, e := range g.Entries {
		names[e.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// own is the provider's name for the model.
func (e *Entry) own() string {
	if e.Model != "" {
		return e.Model
	}
	return e.Name
}

// Spec is the model as the compiler sees it.
func (e *Entry) Spec() pipeline.ModelSpec {
	s := pipeline.ModelSpec{
		Name: e.Name, Tasks: e.Capabilities.Tasks, Context: e.Capabilities.ContextWindow, Expertise: e.Capabilities.Expertise,
		Size: pipeline.ModelSize(e.Capabilities.Size), Tools: yes(e.Capabilities.Tools), Structured: yes(e.Capabilities.Structured),
		Streaming: e.Capabilities.Streaming == nil || *e.Capabilities.Streaming, Languages: e.Capabilities.Languages,
	}
	if p, ok := e.Price(time.Now()); ok {
		s.Cost = p.perThousand()
	}
	return s
}

func yes(b *bool) bool { return b != nil && *b }

// Price is what the model costs at a time; false: that is not known.
func (e *Entry) Price(at time.Time) (Price, bool) {
	var found *Price
	for i := range e.Prices {
		p := &e.Prices[i]
		if !p.From.After(at) && (found == nil || p.From.After(found.From)) {
			found = p
		}
	}
	switch {
	case found != nil:
		return *found, true
	case e.Metrics.CostPerToken != nil:
		each := *e.Metrics.CostPerToken * million
		return Price{Input: each, Output: each}, true
	}
	return Price{}, false
}

const million = 1e6

// Cost is what a usage costs, in USD.
func (p Price) Cost(u *pipeline.Usage) float64 {
	rest := max(0, u.InputTokens-u.CachedTokens-u.CacheWriteTokens)
	sum := float64(rest)*p.Input + float64(u.OutputTokens)*p.Output
	sum += float64(u.CachedTokens) * or(p.Cached, p.Input)
	sum += float64(u.CacheWriteTokens) * or(p.CacheWrite, p.Input)
	return sum / million
}

// perThousand is the price of 1,000 tokens, three of four of them in the request.
func (p Price) perThousand() float64 { return (3*p.Input + p.Output) / 4 / 1000 }

func or(p *float64, otherwise float64) float64 {
	if p != nil {
		return *p
	}
	return otherwise
}

// priceNow is what the model costs today.
func (e *Entry) priceNow() (Price, bool) { return e.Price(time.Now()) }
