package model

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a router. The label model is the provider and its name for the
// model, where the registry has it; else the provider and "other".
type metrics struct {
	calls    *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	cost     *prometheus.CounterVec
	unpriced *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	first    *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	switched *prometheus.CounterVec
	state    *prometheus.GaugeVec
	recalled prometheus.Counter

	// As OpenTelemetry has them, in the names that they have in Prometheus.
	genTokens  *prometheus.HistogramVec
	genSeconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "orchestrator_model_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "orchestrator_model_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.01, 2.5, 12),
		}, []string{"model"})
	}
	m := &metrics{
		calls:    counter("calls_total", "Calls of models, by outcome: ok, or the class of the error.", "model", "outcome"),
		tokens:   counter("tokens_total", "Tokens used, by kind: input, output, cached, cache_write, reasoning.", "model", "kind"),
		cost:     counter("cost_usd_total", "Cost of calls whose price is known, in USD.", "model"),
		unpriced: counter("unpriced_calls_total", "Calls that have cost something nobody knows.", "model"),
		seconds:  histogram("call_seconds", "Duration of calls, with their retries."),
		first:    histogram("first_token_seconds", "Time until the first piece of an answer."),
		retries:  counter("retries_total", "Requests that were sent again, by the class of the error.", "model", "class"),
		switched: counter("switches_total", "Calls that went on to another model.", "model"),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "orchestrator_model_breaker_state", Help: "State of the circuit breaker: 0 closed, 1 half-open, 2 open.",
		}, []string{"model"}),
		recalled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "orchestrator_model_recalled_total", Help: "Calls that were answered from the journal of an earlier attempt.",
		}),
	}
	m.genTokens = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gen_ai_client_token_usage", Help: "Input and output tokens of requests to models.", Buckets: prometheus.ExponentialBuckets(1, 4, 14),
	}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"})
	m.genSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gen_ai_client_operation_duration_seconds", Help: "Duration of requests to models, each try by itself.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
	}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"})
	if reg != nil {
		reg.MustRegister(m.genTokens, m.genSeconds)
		reg.MustRegister(m.calls, m.tokens, m.cost, m.unpriced, m.seconds, m.first, m.retries, m.switched, m.state, m.recalled)
	}
	return m
}

func (m *metrics) breaker(name, state string) {
	m.state.WithLabelValues(name).Set(map[string]float64{BreakerClosed: 0, BreakerHalfOpen: 1, BreakerOpen: 2}[state])
}

// observe counts a call of one model, with its retries.
func (r *Router) observe(c *call, t *target, err error, took time.Duration) {
	name := t.metric()
	outcome := "ok"
	if err != nil {
		outcome = "failed"
		if e, ok := errors.AsType[*Error](err); ok {
			outcome = e.Class
		}
	}
	r.met.calls.WithLabelValues(name, outcome).Inc()
	r.met.seconds.WithLabelValues(name).Observe(took.Seconds())
	if c.first > 0 {
		r.met.first.WithLabelValues(name).Observe(c.first.Seconds())
	}
	u := c.charged
	if u != nil {
		for kind, n := range map[string]int32{
			"input": u.InputTokens, "output": u.OutputTokens, "cached": u.CachedTokens, "cache_write": u.CacheWriteTokens, "reasoning": u.ReasoningTokens,
		} {
			if n > 0 {
				r.met.tokens.WithLabelValues(name, kind).Add(float64(n))
			}
		}
		r.met.cost.WithLabelValues(name).Add(u.CostUSD - u.ReplayedUSD)
		if c.choice["price"] != nil {
			r.met.unpriced.WithLabelValues(name).Inc()
		}
	}
	if outcome != ClassCancelled {
		r.board.add(c, t, u, err, took)
	}
}

// generated counts a request to a model.
func (m *metrics) generated(t *target, a *Response, err error, took time.Duration) {
	op, provider := operation(t.Provider), TraceProvider(t.Provider)
	_, name, _ := strings.Cut(t.metric(), "/")
	class := ""
	if err != nil {
		class = errorClass(err)
	}
	m.genSeconds.WithLabelValues(op, provider, name, class).Observe(took.Seconds())
	if a == nil || a.Usage == nil {
		return
	}
	m.genTokens.WithLabelValues(op, provider, name, "input").Observe(float64(a.Usage.InputTokens))
	m.genTokens.WithLabelValues(op, provider, name, "output").Observe(float64(a.Usage.OutputTokens))
}

// metric is the model's label.
func (t *target) metric() string {
	if t.alias != nil && t.alias.Provider != "" && t.Entry.Name == t.Entry.own() && len(t.Entry.Prices) == 0 && t.Entry.Metrics.CostPerToken == nil {
		return t.Provider + "/other"
	}
	return t.id()
}
