package server

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// metrics is what /metrics tells of the server itself. Labels take few values:
// never a run's or a pipeline's name.
type metrics struct {
	begin    time.Time
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	http     *prometheus.CounterVec
	streams  prometheus.Gauge
	events   *prometheus.CounterVec
	finished *prometheus.CounterVec
}

func newMetrics(reg *prometheus.Registry, s *Server) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "orchestrator_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "orchestrator_" + name, Help: help}, f)
	}
	m := &metrics{
		begin:    time.Now(),
		requests: counter("api_requests_total", "API calls by method and gRPC code; REST calls count here too.", "method", "code"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "orchestrator_api_request_seconds", Help: "Time that API calls took; of streams, their whole life.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"method"}),
		http: counter("http_requests_total", "HTTP requests by what they were for and HTTP code.", "route", "code"),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orchestrator_api_streams", Help: "Streams that are open: watched runs and followed logs.",
		}),
		events:   counter("watched_events_total", "Run events that this process has read since it began, by type. Only runs that somebody looks at are read.", "type"),
		finished: counter("watched_runs_finished_total", "Runs that ended while this process looked at them, by status.", "status"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "orchestrator_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": s.cfg.Version},
	})
	build.Set(1)
	own := []prometheus.Collector{
		m.requests, m.seconds, m.http, m.streams, m.events, m.finished, build,
		gauge("hub_runs", "Runs that the hub keeps folded.", func() float64 { n, _, _ := s.hub.sizes(); return float64(n) }),
		gauge("hub_users", "Requests that use a folded run now.", func() float64 { _, n, _ := s.hub.sizes(); return float64(n) }),
		gauge("hub_bytes", "Memory of folded runs, about.", func() float64 { _, _, n := s.hub.sizes(); return float64(n) }),
		gauge("plan_cache_bytes", "Memory of compiled plans, about.", func() float64 { return float64(s.plans.size()) }),
		newQueueGauges(s),
	}
	for _, c := range own {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		var twice prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &twice) {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(method string, code codes.Code, took time.Duration) {
	m.requests.WithLabelValues(method, code.String()).Inc()
	m.seconds.WithLabelValues(method).Observe(took.Seconds())
}

func (m *metrics) served(route string, code int) {
	m.http.WithLabelValues(route, strconv.Itoa(code)).Inc()
}

// event counts an event that the hub has folded; older ones than this process
// are history.
func (m *metrics) event(e *pipeline.Event) {
	if e.At.Before(m.begin) {
		return
	}
	m.events.WithLabelValues(string(e.Type)).Inc()
	if e.Type == pipeline.RunFinished {
		m.finished.WithLabelValues(string(e.Data.RunStatus)).Inc()
	}
}
