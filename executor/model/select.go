package model

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// How a model came to be asked.
const (
	byName     = "name"     // the step names it
	byKept     = "kept"     // it has answered in this conversation before
	byPolicy   = "policy"   // chosen among those that suit
	byFallback = "fallback" // in the stead of one that failed
	byScript   = "script"   // scripted answers stand in for all models
)

// selection is which models are asked, the first one first.
type selection struct {
	targets []*target
	by      string
	policy  string
	passed  []*target // that suit not, with their reasons
}

// pick chooses the models for a request. The error is a *pipeline.Failure.
func (r *Router) pick(ctx context.Context, c *call) (*selection, error) {
	if r.cfg.Scripted != nil {
		e := &Entry{Name: c.asked.Model, Provider: ProviderScript, Model: c.asked.Model}
		return &selection{by: byScript, targets: []*target{{Entry: e, name: c.asked.Model, endpoint: Endpoint{Provider: ProviderScript}}}}, nil
	}
	kept := ""
	if c.asked.Agent != "" || c.asked.Phase == PhaseRepair { // it goes on with what was said
		c.talk.mu.Lock()
		kept = c.talk.model
		c.talk.mu.Unlock()
	}
	named := c.asked.Model
	if named == "" && kept != "" {
		if t, fail := r.find(c.env, kept); fail == nil && r.lacks(ctx, c, t) == "" {
			s := &selection{by: byKept, targets: []*target{t}}
			r.addOthers(ctx, c, s)
			return s, nil
		}
	}
	if named == "" {
		return r.choose(ctx, c)
	}
	first, fail := r.find(c.env, named)
	if fail != nil {
		return nil, fail
	}
	s := &selection{by: byName}
	for _, t := range r.line(c.env, first) {
		if t.missing = r.unavailable(ctx, t); t.missing != "" {
			if q := r.quantized(ctx, c, t); q != nil {
				s.passed = append(s.passed, t)
				t = q
			}
		}
		if t.missing != "" {
			s.passed = append(s.passed, t)
			continue
		}
		s.targets = append(s.targets, t)
	}
	if len(s.targets) == 0 {
		return nil, refused("model_unavailable", "no model can be asked: %s%s", reasons(s.passed), hint(s.passed))
	}
	// A conversation stays with the model that it was switched to.
	if i := slices.IndexFunc(s.targets, func(t *target) bool { return t.name == kept }); i > 0 {
		s.by = byKept
		s.targets = append([]*target{s.targets[i]}, slices.Delete(slices.Clone(s.targets), i, i+1)...)
	}
	return s, nil
}

// line is a model and those that are asked in its stead.
func (r *Router) line(env executor.Env, first *target) []*target {
	list := []*target{first}
	if r.cfg.NoFallback {
		return list
	}
	for _, name := range first.fallback() {
		if slices.ContainsFunc(list, func(t *target) bool { return t.name == name }) {
			continue
		}
		if t, fail := r.find(env, name); fail == nil {
			list = append(list, t)
		} else {
			r.log.Warn("fallback is not known", "model", first.name, "fallback", name)
		}
	}
	return list
}

// addOthers adds to a model that is kept those that are asked in its stead.
func (r *Router) addOthers(ctx context.Context, c *call, s *selection) {
	if r.cfg.NoFallback {
		return
	}
	more, err := r.choose(ctx, c)
	if err != nil {
		return
	}
	for _, t := range more.targets {
		if t.name != s.targets[0].name {
			s.targets = append(s.targets, t)
		}
	}
}

// reasons says why models were passed over, those of the same reason together.
func reasons(passed []*target) string {
	var parts []string
	names := map[string][]string{}
	for _, t := range passed {
		if names[t.missing] == nil {
			parts = append(parts, t.missing)
		}
		names[t.missing] = append(names[t.missing], t.name)
	}
	for i, why := range parts {
		parts[i] = strings.Join(names[why], ", ") + ": " + why
	}
	return strings.Join(parts, "; ")
}

// hint says what else can be done where it is keys that are missing.
func hint(passed []*target) string {
	if slices.ContainsFunc(passed, func(t *target) bool { return t.endpoint.Key == "" && strings.HasPrefix(t.missing, noKey) }) {
		return ". To answer from a file instead: --script FILE"
	}
	return ""
}

// maxAsked is how many models are asked in turn where none is named.
const maxAsked = 3

// choose chooses among all models that suit.
func (r *Router) choose(ctx context.Context, c *call) (*selection, error) {
	all := r.candidates(c.env)
	name, p, err := r.policy(c.asked.Needs)
	if err != nil {
		return nil, err
	}
	s := &selection{by: byPolicy, policy: name}
	var fits []*target
	for _, t := range all {
		if t.missing = r.lacks(ctx, c, t); t.missing != "" {
			s.passed = append(s.passed, t)
		} else {
			fits = append(fits, t)
		}
	}
	// A quantized version is for machines on which the full one has no room.
	for _, t := range slices.Clone(fits) {
		full := t.BaseModel
		if full != "" && slices.ContainsFunc(fits, func(o *target) bool { return o.Entry.Name == full }) {
			fits = slices.DeleteFunc(fits, func(o *target) bool { return o == t })
			t.missing = full + " has room, which it is a lesser version of"
			s.passed = append(s.passed, t)
		}
	}
	if len(fits) == 0 {
		if len(all) == 0 {
			return nil, refused("no_model", "there are no models: name some in models.yaml, or answer from a file with --script FILE")
		}
		return nil, refused("no_model", "no model suits: %s%s", reasons(s.passed), hint(s.passed))
	}
	if err := r.board.load(ctx); err != nil {
		r.log.Warn("statistics of models not read", "err", err)
	}
	r.score(p, fits)
	slices.SortStableFunc(fits, func(a, b *target) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	s.targets = fits
	if r.cfg.NoFallback {
		s.targets = fits[:1]
		s.passed = append(s.passed, fits[1:]...)
	} else if len(fits) > maxAsked {
		s.targets = fits[:maxAsked]
		s.passed = append(s.passed, fits[maxAsked:]...)
	}
	return s, nil
}

// candidates are the models of the registry, with those that the pipeline names
// in their places or after them.
func (r *Router) candidates(env executor.Env) []*target {
	var list []*target
	for _, e := range r.cfg.Registry.Entries {
		if env.Unit == nil || env.Unit.Model(e.Name) == nil {
			list = append(list, r.registered(env, e))
		}
	}
	if env.Unit != nil {
		for i := range env.Unit.Models {
			if t, fail := r.aliased(env, &env.Unit.Models[i]); fail == nil {
				list = append(list, t)
			}
		}
	}
	return list
}

// policy is the one that counts.
func (r *Router) policy(n *pipeline.Needs) (string, SelectionPolicy, error) {
	name := r.cfg.Policy
	if n != nil && n.Policy != "" {
		name = n.Policy
	}
	if p, ok := r.cfg.Registry.Policies[name]; ok {
		return name, p, nil
	}
	if name == DefaultPolicy {
		return name, SelectionPolicy{Strategy: StrategyUCB}, nil
	}
	f := pipeline.Failuref(pipeline.CategoryValidation, "there is no selection policy %s in the registry of models", name)
	f.Reason = "policy_unknown"
	return "", SelectionPolicy{}, f
}

// lacks says why a model does not suit a request, empty: it does.
func (r *Router) lacks(ctx context.Context, c *call, t *target) string {
	spec := t.Spec()
	if why := c.asked.Needs.Lacks(&spec); why != "" {
		return why
	}
	if n := c.asked.Needs; n != nil && n.CostLimit > 0 && !t.free() {
		if _, known := t.Price(c.begun); !known {
			return "what it costs is not known"
		}
	}
	if len(c.asked.Tools) > 0 && !spec.Tools {
		return "it does not call tools"
	}
	if tokens := c.inputTokens(); spec.Context > 0 && tokens > spec.Context {
		return fmt.Sprintf("the conversation has about %d tokens, more than its context of %d", tokens, spec.Context)
	}
	return r.unavailable(ctx, t)
}

// unavailable says why a model cannot be asked now; empty: it can.
func (r *Router) unavailable(ctx context.Context, t *target) string {
	if t.missing != "" {
		return t.missing
	}
	if file := t.endpoint.File; file != "" && !t.endpoint.Records {
		if _, err := os.Stat(file); err != nil {
			return fmt.Sprintf("its file %s cannot be read", file)
		}
	}
	if t.Provider == ProviderLocal {
		if near(t.endpoint.BaseURL) {
			if why := r.hostOf().lacks(t.Requirements); why != "" {
				return why
			}
		}
		if why := r.probed(ctx, t); why != "" {
			return why
		}
	}
	if r.breakers.state(t.id()) == BreakerOpen {
		return "it has failed too often just now and is left alone for a while"
	}
	return ""
}

// quantized is a version of a local model that suits where the model itself has no
// room; nil: there is none, or it is not for want of room.
func (r *Router) quantized(ctx context.Context, c *call, t *target) *target {
	if t.Provider != ProviderLocal || !near(t.endpoint.BaseURL) || r.hostOf().lacks(t.Requirements) == "" {
		return nil
	}
	for _, e := range r.cfg.Registry.Entries {
		if e.BaseModel != t.Entry.Name {
			continue
		}
		if q := r.registered(c.env, e); q.missing == "" && r.unavailable(ctx, q) == "" {
			q.reason = t.name + " has no room: " + t.missing
			return q
		}
	}
	return nil
}

// score gives each model its score by the policy.
func (r *Router) score(p SelectionPolicy, list []*target) {
	stats := make([]Stat, len(list))
	total := int64(0)
	for i, t := range list {
		stats[i] = r.board.stat(t.statName())
		total += stats[i].Calls
	}
	if p.Strategy == StrategyWeighted {
		weigh(p.Weights, list, stats)
		return
	}
	factor := or(p.Exploration, defaultExploration)
	for i, t := range list {
		t.score, t.reason = ucb1(stats[i].Calls, stats[i].Reward, total, factor)
	}
}

// ucb1 is the upper confidence bound of a model's reward: its mean, and the more
// the less often it was tried among all total tries (Auer, Cesa-Bianchi, Fischer
// 2002).
func ucb1(n int64, reward float64, total int64, factor float64) (float64, string) {
	if n == 0 {
		return math.Inf(1), "it was not tried yet"
	}
	mean := reward / float64(n)
	bonus := factor * math.Sqrt(math.Log(float64(total)+1)/float64(n))
	return mean + bonus, fmt.Sprintf("mean reward %.3f of %d calls, and %.3f for what is not known", mean, n, bonus)
}

// weigh scores by weights: each measure as a share of the span between the best
// and the worst of the models; one that is not known counts half.
func weigh(w Weights, list []*target, stats []Stat) {
	cost, latency, accuracy := make([]float64, len(list)), make([]float64, len(list)), make([]float64, len(list))
	for i, t := range list {
		cost[i], latency[i], accuracy[i] = math.NaN(), math.NaN(), math.NaN()
		if p, ok := t.priceNow(); ok {
			cost[i] = -p.perThousand()
		}
		if m := t.Metrics.LatencyP50; m > 0 {
			latency[i] = -m
		}
		if n := stats[i].Calls - stats[i].Failures; n >= measured {
			latency[i] = -stats[i].Seconds / float64(n)
		}
		if a := t.Metrics.Accuracy; a > 0 {
			accuracy[i] = a
		}
	}
	for i, t := range list {
		c, l, a := share(cost, i), share(latency, i), share(accuracy, i)
		t.score = w.Cost*c + w.Latency*l + w.Accuracy*a
		t.reason = fmt.Sprintf("cost %.2f, latency %.2f, accuracy %.2f", c, l, a)
	}
}

// measured is how many answers make a mean that counts more than what the
// registry says.
const measured = 5

func share(values []float64, i int) float64 {
	if math.IsNaN(values[i]) {
		return 0.5
	}
	least, most := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) {
			least, most = min(least, v), max(most, v)
		}
	}
	if least == most {
		return 1
	}
	return (values[i] - least) / (most - least)
}

// choice is what is recorded of the selection.
func (s *selection) choice(t *target, switched []any) map[string]any {
	m := map[string]any{"model": t.name, "by": s.by}
	if t.name == "" {
		delete(m, "model")
	}
	if own := t.own(); own != t.name {
		m["id"] = own
	}
	if len(switched) > 0 {
		m["by"], m["instead_of"] = byFallback, switched
	}
	if t.reason != "" {
		m["reason"] = t.reason
	}
	if s.by == byPolicy {
		m["policy"] = s.policy
		m["candidates"] = candidateValues(s.targets)
	}
	if len(s.passed) > 0 {
		list := make([]any, len(s.passed))
		for i, p := range s.passed {
			list[i] = map[string]any{"model": p.name, "reason": p.passedBecause()}
		}
		m["passed"] = list
	}
	return m
}

func (t *target) passedBecause() string {
	if t.missing != "" {
		return t.missing
	}
	return t.reason
}

func candidateValues(list []*target) []any {
	values := make([]any, len(list))
	for i, t := range list {
		v := map[string]any{"model": t.name, "reason": t.reason}
		if !math.IsInf(t.score, 0) {
			v["score"] = t.score
		}
		values[i] = v
	}
	return values
}
